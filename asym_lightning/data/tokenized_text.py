"""The data module that every text task builds on: tokenised once, kept on disk, batched by length."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from asym_lightning.core.cache import user_cache_dir
from asym_lightning.core.kinds import Count, Names, Seed, as_names
from asym_lightning.core.messages import first_line, shown
from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.data.base import BatchDataModule
from asym_lightning.data.length_bucketing import LengthBucketSampler, LongestFirstSampler
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.padding import PadBatch
from asym_lightning.data.text_source import TextSource, in_parts
from asym_lightning.data.text_table import TextTable, is_cell, is_missing
from asym_lightning.data.tokenized_rows import Ragged, Texts, TokenizedRows

CACHE_FORMAT = 3
ROWS_AT_ONCE = 20_000
"""Rows of a large file that are in memory while they are tokenised: some hundred megabytes of them."""
_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
LONGEST = 512
"""The limit where none of the config, the tokenizer and the model names one."""


class TokenizedTextDataModule(BatchDataModule, ABC):
    """Texts, tokenised when they are first met and read from a cache from then on.

    A task is a subclass with two methods: `sources`, where each split comes from, and `encode`, which
    tokenises a table. The rest is here: the cache, batches padded to a multiple of 8, training batches of rows
    of like length in a random order, and evaluation sets with names.

    Splits go by `train`, `val`, `test` and `predict`; where a split consists of several sets, by `val/matched` and so
    on: each becomes a data loader of its own, and `evaluation_sets` tells the module how to name their metrics.

    Batches are dictionaries: what `encode` made, `attention_mask`, and `row`, the number of each row in its split.

    Args:
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; longer ones are truncated, with one warning that counts them. None
            means what the tokenizer's model allows, and never more than that is used.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows; apart from the run's, so that other runs can see the same order.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If a number is out of range.
    """

    encodes_rows_alone = False
    """Whether `encode` makes a row of each row, whatever the others are: it then gets a large table in parts."""

    def __init__(
        self,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(loader)
        self.max_length = max_length
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir is not None else user_cache_dir()
        self.seed = seed
        self.num_train = num_train
        self.rows: dict[str, TokenizedRows] = {}
        self._tokenizer_source = tokenizer

    # What a task defines

    @abstractmethod
    def sources(self) -> Mapping[str, TextSource]:
        """Return where each split comes from."""

    @abstractmethod
    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise a table; `encode_texts` does most of it.

        Raises:
            ValueError: If the table lacks a column or a row is wrong; the message says where.
        """

    def encoding(self, split: str) -> str:
        """Return a text that changes when `encode` would give something else: the task's part of the cache's key."""
        return ""

    # Tokenising

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a padding token.

        Raises:
            ValueError: If it is not given and there is no module to take its name from, or cannot be loaded.
        """
        source = self._tokenizer_source
        if source is None:
            module = getattr(self.trainer, "lightning_module", None)
            source = module.hparams.get("backbone") if module is not None else None
            if not isinstance(source, str):
                raise ValueError("`tokenizer` is not given, and the model's `backbone` is no name to take it from.")
        return load_tokenizer(source) if isinstance(source, str) else source

    @property
    def pad_token_id(self) -> int:
        """What batches are padded with."""
        return pad_token_id(self.tokenizer)

    @property
    def longest(self) -> int:
        """Longest sequence, in tokens."""
        limits = [self.max_length, self._tokenizer_limit, longest_of_model(self.tokenizer.name_or_path)]
        return min((limit for limit in limits if limit is not None), default=LONGEST)

    @property
    def _tokenizer_limit(self) -> int | None:
        limit = self.tokenizer.model_max_length
        return limit if limit < 1e9 else None  # some 1e30 stands for not knowing

    def encode_texts(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[dict[str, Ragged], int]:
        """Tokenise texts, or pairs of texts, as the tokenizer's model wants them.

        Args:
            texts: The texts.
            pairs: The second text of each pair.

        Returns:
            Sequences by field name, and the number of them that were truncated.
        """
        with_types = "token_type_ids" in self.tokenizer.model_input_names
        if not self.tokenizer.is_fast:
            return self._encode_slowly(texts, pairs, with_types)
        # The Rust tokenizer itself: transformers' own call takes twice as long to wrap its results in lists.
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.longest)
        encodings = backend.encode_batch_fast(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
        sequences = {"input_ids": Ragged.of(encoding.ids for encoding in encodings)}
        if with_types:
            sequences["token_type_ids"] = Ragged.of((encoding.type_ids for encoding in encodings), np.uint8)
        full = np.flatnonzero(sequences["input_ids"].lengths() >= self.longest)
        return sequences, sum(bool(encodings[row].overflowing) for row in full)

    def _encode_slowly(
        self, texts: Sequence[str], pairs: Sequence[str] | None, with_types: bool
    ) -> tuple[dict[str, Ragged], int]:
        encoded = self.tokenizer(list(texts), None if pairs is None else list(pairs), truncation=False, verbose=False)
        num_truncated = sum(len(ids) > self.longest for ids in encoded["input_ids"])
        if num_truncated:
            second = None if pairs is None else list(pairs)
            encoded = self.tokenizer(list(texts), second, truncation=True, max_length=self.longest)
        sequences = {"input_ids": Ragged.of(encoded["input_ids"])}
        if with_types:
            sequences["token_type_ids"] = Ragged.of(encoded["token_type_ids"], np.uint8)
        return sequences, num_truncated

    # Loading

    def prepare_data(self) -> None:
        """Tokenise what is not in the cache yet; Lightning calls this in one process.

        Before training all splits are, so that what is wrong with a test file is said before hours of training. Else
        those that are asked for: what a model is trained on need not be there where it predicts.
        """
        for split in self.sources():
            if self._stage in ("fit", None) or split.partition("/")[0] in _SPLITS[self._stage]:
                self.load(split)

    @property
    def _stage(self) -> str | None:
        running = None if self.trainer is None else self.trainer.state.fn
        return None if running is None else running.value

    def setup(self, stage: str) -> None:
        """Read what the stage needs from the cache.

        Raises:
            ValueError: If a split is empty, or a row of it is wrong.
        """
        for split in self.sources():
            if split.partition("/")[0] in _SPLITS[stage] and split not in self.rows:
                rows = self.load(split)
                for remark in self.remarks(split, rows):
                    rank_zero_warn(remark)
                self.rows[split] = rows if split == "train" else self.for_evaluation(split, rows)

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say what there is to know of a split beside its rows, such as what was left out: each is a warning."""
        if truncated := rows.facts.get("num_truncated"):
            yield (
                f"{truncated} of the {len(rows)} sequences of {split} are longer than {self.longest} tokens and were "
                "truncated."
            )

    def for_evaluation(self, split: str, rows: TokenizedRows) -> TokenizedRows:
        """Return rows with what evaluation and prediction need beside tokens, such as whole texts."""
        return rows

    def load(self, split: str) -> TokenizedRows:
        """Return a split from the cache, or tokenise it and put it there.

        Raises:
            ValueError: If the split is empty, or a row of it is wrong.
        """
        source = self.sources()[split]
        path = self.cache_dir / f"{self._cache_key(source, self.encoding(split))}.safetensors"
        rows = TokenizedRows.load(path)
        return TokenizedRows.write(path, self._encoded(split, source)) if rows is None else rows

    def _encoded(self, split: str, source: TextSource) -> Iterator[TokenizedRows]:
        for table in in_parts(source, ROWS_AT_ONCE) if self.encodes_rows_alone else [source.read()]:
            table.check_not_empty(split)
            yield self.encode(split, table)

    def _cache_key(self, source: TextSource, encoding: str) -> str:
        parts = (CACHE_FORMAT, source.fingerprint(), self._tokenizer_fingerprint, self.longest, encoding)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    @functools.cached_property
    def _tokenizer_fingerprint(self) -> str:
        if not self.tokenizer.is_fast:
            return repr((type(self.tokenizer).__name__, sorted(self.tokenizer.get_vocab().items())))
        self.tokenizer.backend_tokenizer.no_truncation()  # the length is a part of the key of its own
        self.tokenizer.backend_tokenizer.no_padding()
        serialized = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(f"{serialized} {self.tokenizer.model_input_names}".encode()).hexdigest()

    # Batches

    @property
    def evaluation_sets(self) -> dict[str, list[str]]:
        """Names of the sets of a split that has several, by split; the data loaders come in this order."""
        sets: dict[str, list[str]] = {}
        for split in self.sources():
            stage, _, name = split.partition("/")
            if name:
                sets.setdefault(stage, []).append(name)
        return sets

    def train_dataloader(self) -> DataLoader:
        """Training batches: rows of like length, in random order."""
        rows = self._rows("train")
        chosen = self._chosen_rows(len(rows))
        sampler = LengthBucketSampler(rows.lengths()[np.asarray(chosen)], self.batch_size, self.seed)
        return self.padded_loader(Subset(rows, chosen), is_training=True, sampler=sampler)

    def _chosen_rows(self, count: int) -> Sequence[int]:
        if self.num_train is None:
            return range(count)
        if self.num_train > count:
            raise ValueError(f"`num_train` must be at most {count}, the training rows there are, not {self.num_train}.")
        return np.random.default_rng(0).permutation(count)[: self.num_train].tolist()

    def val_dataloader(self) -> list[DataLoader]:
        """Validation batches, the longest rows first; a data loader for each set."""
        return self._evaluation("val")

    def test_dataloader(self) -> list[DataLoader]:
        """Test batches, the longest rows first; a data loader for each set."""
        return self._evaluation("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Batches to predict, the longest rows first; a data loader for each set."""
        return self._evaluation("predict")

    def _evaluation(self, stage: str) -> list[DataLoader]:
        splits = [split for split in self.sources() if split.partition("/")[0] == stage]
        if not splits and stage != "val":  # training without validation is a choice, testing on nothing is not
            raise ValueError(f"there is no {stage} data: the data module has {', '.join(self.sources()) or 'none'}.")
        return [
            self.padded_loader(rows, sampler=LongestFirstSampler(rows.lengths())) for rows in map(self._rows, splits)
        ]

    def _rows(self, split: str) -> TokenizedRows:
        if split not in self.rows:
            raise ValueError(f"there is no {split} data: the data module has {', '.join(self.rows) or 'none'}.")
        return self.rows[split]

    def padded_loader(self, rows: Dataset, *, is_training: bool = False, sampler: Sampler) -> DataLoader:
        """Return padded batches of rows, in the order of a sampler."""
        collate = PadBatch({"input_ids": self.pad_token_id, **self.pad_values()}, longest=self.longest)
        return self.data_loader(rows, is_training=is_training, sampler=sampler, collate_fn=collate)

    def pad_values(self) -> dict[str, int]:
        """What fields other than `input_ids` are padded with; those that are not named are padded with 0."""
        return {}


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        source: Name on the hub or local folder.

    Raises:
        ValueError: If there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of any kind: what is in the folder goes straight into a constructor
        message = (
            f"there is no tokenizer in {shown(source)}, on the hub or as a local folder: {first_line(error)[:120]}"
        )
        raise ValueError(message) from error


@functools.cache
def longest_of_model(source: str) -> int | None:
    """Longest sequence that the model beside a tokenizer allows; None if it has no limit or there is no model.

    Args:
        source: Name on the hub or local folder.
    """
    try:
        return longest_sequence(AutoConfig.from_pretrained(source, trust_remote_code=False))
    except Exception:  # of any kind; whoever builds the model says what is wrong
        return None


def as_texts(values: Iterable[Any], table: TextTable) -> list[str]:
    """Return a column as texts; numbers and truth values are written out.

    Raises:
        ValueError: If a row has none, or what is no text; the message says where.

    Example:
        >>> as_texts(["Hello.", 7], TextTable("a.tsv", {}))
        ['Hello.', '7']
    """
    texts: list[str] = []
    for row, value in enumerate(values):
        if is_missing(value):
            raise ValueError(f"{table.where(row)}: there is no text.")
        if not is_cell(value):
            raise ValueError(f"{table.where(row)}: there is no text, but {shown(value)}.")
        texts.append(value if isinstance(value, str) else str(value))
    return texts


def as_text_columns(names: Names) -> tuple[str, ...]:
    """Return the names of one column of texts, or of two for pairs.

    Raises:
        ValueError: If there are more, or none.

    Example:
        >>> as_text_columns("text")
        ('text',)
    """
    columns = as_names(names)
    if len(columns) not in (1, 2):
        raise ValueError(f"`text_columns` must name one column, or two for pairs, not {list(columns)}.")
    return columns


def identifiers(table: TextTable, column: str | None) -> Texts:
    """Return the names of a table's rows: those of a column, or their numbers where that is None."""
    numbers = range(table.first_row, table.first_row + len(table))
    return Texts.of(map(str, table.column(column) if column else numbers))
