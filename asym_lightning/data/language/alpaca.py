"""Instructions and responses: Stanford Alpaca, or the user's own records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, NumberOrZero, Seed
from asym_lightning.core.messages import check_choice
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.language.packing import PackedRows
from asym_lightning.data.language.prompts import Part, Template, alpaca_parts, chat_parts
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.record_file import with_validation
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import HubSplit, TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.learnt_tokens import learnt_tokens
from asym_lightning.data.tokens.length_bucketing import LengthBucketSampler
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule

HUB_REPOSITORY = "tatsu-lab/alpaca"


class AlpacaDataModule(TokenizedTextDataModule):
    """Prompts and responses for `InstructionTuner`: Alpaca from the hub, or local records.

    A record is `instruction`, `input` (may be empty or missing) and `output`, or with `template: chat` a list
    `messages`. Files are `.json` (an array), `.jsonl`, csv, tsv or parquet. Prompt and response are tokenised as one
    text; the labels of the prompt's tokens are -100, and the end of the response is learnt.

    A record whose prompt alone fills `max_length` has nothing to learn from and is left out; a longer response is cut.
    Both are counted in a warning.

    Batches hold `input_ids`, `attention_mask`, `labels` and `row`; packed ones also `position_ids` and `segment_ids`.
    A tokenizer without a padding token is padded with the end of the text: the mask knows lengths, not tokens.

    Args:
        train: Training file, or `hf:owner/name:split`; None takes Alpaca from the hub, unless there is another file.
        val: Validation file; None sets `num_val` training records apart.
        test: Test file; None means the validation data.
        predict: File whose prompts to answer; None means the test data.
        num_val: Number of training records set apart where there is no `val`; 0 trains without validation.
        template: `alpaca`, the two prompts of Stanford Alpaca, or `chat`, the tokenizer's chat template.
        packing: Put several short examples in one training row; each still sees nothing but itself. A row is then
            up to `max_length` tokens, and `loader.batch_size` counts rows.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; None means what the tokenizer's model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows and of the choice of validation rows.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If the template is unknown, or a number is out of range.

    Example:
        >>> list(AlpacaDataModule("train.jsonl", num_val=0, test="test.jsonl").sources())
        ['train', 'test', 'predict']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        num_val: NumberOrZero = 2000,
        template: Template = "alpaca",
        packing: bool = False,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = 512,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        loader: LoaderOptions = LoaderOptions(batch_size=8),
    ) -> None:
        super().__init__(tokenizer=tokenizer, max_length=max_length, cache_dir=cache_dir, seed=seed, loader=loader)
        check_choice("template", template, get_args(Template))
        alpaca = {"train": HubSplit(HUB_REPOSITORY, None, "train")}
        is_own = (train, val, test, predict) != (None,) * 4
        given = split_sources(train, val, test, predict, otherwise={} if is_own else alpaca)
        self._sources = with_validation(given, num_val, seed)
        for split, instead in {"test": "val", "predict": "test"}.items():
            if split not in self._sources and instead in self._sources:
                self._sources[split] = self._sources[instead]
        self.template = template
        self.packing = packing

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, or Alpaca on the hub, of which a part is set apart for validation."""
        return self._sources

    def encoding(self, split: str) -> str:
        """Return the template, and the chat template where it is used."""
        return f"{self.template} {self.tokenizer.chat_template if self.template == 'chat' else ''}"

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise prompts and responses.

        Raises:
            ValueError: If a record lacks a field.
        """
        ids: list[list[int]] = []
        labels: list[list[int]] = []
        num_dropped = num_truncated = 0
        examples = [self._parts(table, row) for row in range(len(table))]
        for tokens, targets in learnt_tokens(self.tokenizer, examples, has_ends=self.template == "chat"):
            num_truncated += len(tokens) > self.longest
            tokens, targets = tokens[: self.longest], targets[: self.longest]
            if all(target == IGNORED for target in targets):
                num_dropped += 1
                continue
            ids.append(tokens)
            labels.append(targets)
        facts = {"num_truncated": num_truncated - num_dropped, "num_dropped": num_dropped}
        return TokenizedRows({"input_ids": Ragged.of(ids), "labels": Ragged.of(labels)}, facts=facts)

    def nothing_left(self, num_rows: int) -> str:
        """Say that prompts are too long."""
        return (
            f"in each of the {num_rows} records the prompt fills the {self.longest} tokens of `max_length`, so that "
            "there is nothing to learn from."
        )

    def _parts(self, table: TextTable, row: int) -> list[Part]:
        record = {name: values[row] for name, values in table.columns.items()}
        try:
            return chat_parts(record, self.tokenizer) if self.template == "chat" else alpaca_parts(record)
        except ValueError as error:
            raise ValueError(f"{table.where(row)}: {error}") from None

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say what was cut and what was left out."""
        yield from super().remarks(split, rows)
        if dropped := rows.facts.get("num_dropped"):
            yield (
                f"{dropped} records of {split} were left out: their prompts alone fill the {self.longest} tokens of "
                "`max_length`."
            )

    def train_dataloader(self) -> DataLoader:
        """Training batches: rows of like length in random order, or packed rows."""
        if not self.packing:
            return super().train_dataloader()
        if "train" not in self.rows:
            return super().train_dataloader()  # which says what is missing
        packed = PackedRows(self.rows["train"], self.longest)
        sampler = LengthBucketSampler(packed.lengths(), self.batch_size, self.seed)
        return self.padded_loader(packed, is_training=True, sampler=sampler)

    def pad_values(self) -> dict[str, int]:
        """Pad labels with what the loss leaves out."""
        return {"labels": IGNORED}
