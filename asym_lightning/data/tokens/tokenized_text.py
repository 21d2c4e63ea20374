"""The data module that every text task builds on: tokenised once, kept on disk, batched by length."""

from __future__ import annotations

import functools
import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import AutoConfig, PreTrainedTokenizerBase

from asym_lightning.core.cache import user_cache_dir
from asym_lightning.core.kinds import Count, Names, Seed, as_names
from asym_lightning.core.messages import shown
from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.preprocessors import load_preprocessor
from asym_lightning.data.split_data import SplitDataModule
from asym_lightning.data.tables.text_source import ROWS_AT_ONCE, TextSource, in_parts
from asym_lightning.data.tables.text_table import TextTable, is_cell, is_missing
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import Ragged, Texts, TokenizedRows

CACHE_FORMAT = 3
LONGEST = 512
"""The limit where none of the config, the tokenizer and the model names one."""


class TokenizedTextDataModule(SplitDataModule):
    """Texts, tokenised when they are first met and read from a cache from then on.

    A task is a subclass with two methods: `sources`, where each split comes from, and `encode`, which
    tokenises a table, or a part of one, row by row. The rest is here: the cache, and batches padded to a multiple of 8.

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

    encodes_rows_alone = True
    """Whether what `encode` makes of a row hangs on no other row: it then gets a large table in parts."""

    def __init__(
        self,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(seed, num_train, loader)
        self.max_length = max_length
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir is not None else user_cache_dir()
        self._tokenizer_source = tokenizer

    # What a task defines

    @abstractmethod
    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise a table; `encode_texts` does most of it.

        Raises:
            ValueError: If the table lacks a column or a row is wrong; the message says where.
        """

    def encoding(self, split: str) -> str:
        """Return a text that changes when `encode` would give something else: the task's part of the cache's key."""
        return ""

    def nothing_left(self, num_rows: int) -> str:
        """Say why `encode` left all rows out, as the end of a message; for tasks that leave some out.

        Args:
            num_rows: Number of rows that there were.
        """
        return f"none of the {num_rows} rows can be used."

    # Tokenising

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, with a padding token.

        Raises:
            ValueError: If it is not given and there is no module to take its name from, or cannot be loaded.
        """
        source = self.given_or_of_backbone("tokenizer", self._tokenizer_source)
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

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say how many sequences were truncated."""
        if truncated := rows.facts.get("num_truncated"):
            yield (
                f"{truncated} of the {len(rows)} sequences of {split} are longer than {self.longest} tokens and were "
                "truncated."
            )

    def load(self, split: str) -> TokenizedRows:
        """Return a split from the cache, or tokenise it and put it there.

        Raises:
            ValueError: If the split is empty, a row of it is wrong, or all are left out.
        """
        source = self.sources()[split]
        path = self.cache_dir / f"{self._cache_key(source, self.encoding(split))}.safetensors"
        rows = TokenizedRows.load(path)
        return TokenizedRows.write(path, self._encoded(split, source)) if rows is None else rows

    def _encoded(self, split: str, source: TextSource) -> Iterator[TokenizedRows]:
        num_read = num_kept = 0
        for table in in_parts(source, ROWS_AT_ONCE) if self.encodes_rows_alone else [source.read()]:
            table.check_not_empty(split)
            rows = self.encode(split, table)
            num_read, num_kept = num_read + len(table), num_kept + len(rows)
            yield rows
        if not num_kept:
            raise ValueError(f"{table.source}: {self.nothing_left(num_read)}")

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
    return load_preprocessor("tokenizer", source)


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
