"""Prompts with two answers of which one is preferred: the user's own records, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, NumberOrZero, Seed
from asym_lightning.core.messages import check_choice
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.language.preference_records import SIDES, preference_parts
from asym_lightning.data.language.prompts import Part, PromptTemplate
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.record_file import with_validation
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.learnt_tokens import learnt_tokens
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule


class PreferenceDataModule(TokenizedTextDataModule):
    """Pairs of answers for `PreferenceTuner`.

    A record has `chosen` and `rejected`, and what they answer: `prompt`, or `instruction` and `input`, or `messages`.
    Both may be texts, or lists of messages, which may begin with what is asked. Files are `.jsonl`, `.json` (an array),
    csv, tsv or parquet, or a split of a hub's data set, such as `hf:owner/name:train`.

    Pairs whose answers are equal, and those whose prompt alone fills `max_length`, teach nothing and are left out,
    counted in a warning; longer answers are cut.

    Batches hold `chosen_input_ids`, `chosen_attention_mask` and `chosen_labels` (the answer's tokens, -100 elsewhere),
    the same of `rejected`, and `row`.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None sets `num_val` training records apart.
        test: Test file.
        predict: File of pairs to judge; None means the test file.
        num_val: Number of training records set apart where there is no `val`; 0 trains without validation.
        template: `chat`, the tokenizer's chat template, `alpaca`, or `none` for prompts as they are.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; None means what the tokenizer's model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows and of the choice of validation rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, in pairs, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, the template is unknown, or a number is out of range.

    Example:
        >>> list(PreferenceDataModule("pairs.jsonl", num_val=200).sources())
        ['train', 'val']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        num_val: NumberOrZero = 0,
        template: PromptTemplate = "chat",
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = 1024,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(batch_size=4),
    ) -> None:
        super().__init__(tokenizer, max_length, cache_dir, seed, num_train, loader)
        check_choice("template", template, get_args(PromptTemplate))
        self.template = template
        self._sources = with_validation(split_sources(train, val, test, predict), num_val, seed)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def encoding(self, split: str) -> str:
        """Return the template, and the chat template where it is used."""
        return f"{self.template} {self.tokenizer.chat_template if self.template == 'chat' else ''}"

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise prompts and both answers.

        Raises:
            ValueError: If a record is no pair of answers.
        """
        pairs = [self._parts(table, row) for row in range(len(table))]
        examples = [parts for pair in pairs for parts in pair]
        tokenized = learnt_tokens(self.tokenizer, examples, has_ends=self.template == "chat")
        cut = [(tokens[: self.longest], targets[: self.longest]) for tokens, targets in tokenized]
        columns: dict[str, list[list[int]]] = {
            f"{side}_{name}": [] for side in SIDES for name in ("input_ids", "labels")
        }
        facts = dict.fromkeys(("num_truncated", "num_dropped", "num_equal"), 0)
        for row in range(0, len(tokenized), 2):
            both = cut[row : row + 2]
            if any(all(target == IGNORED for target in targets) for _, targets in both):
                facts["num_dropped"] += 1
            elif both[0] == both[1]:
                facts["num_equal"] += 1
            else:
                facts["num_truncated"] += any(len(tokens) > self.longest for tokens, _ in tokenized[row : row + 2])
                for side, (tokens, targets) in zip(SIDES, both, strict=True):
                    columns[f"{side}_input_ids"].append(tokens)
                    columns[f"{side}_labels"].append(targets)
        return TokenizedRows({name: Ragged.of(rows) for name, rows in columns.items()}, facts=facts)

    def nothing_left(self, num_rows: int) -> str:
        """Say that answers are equal or prompts too long."""
        return (
            f"each of the {num_rows} pairs has two equal answers, or a prompt that fills the {self.longest} tokens of "
            "`max_length`: there is nothing to learn from."
        )

    def _parts(self, table: TextTable, row: int) -> list[list[Part]]:
        record = {name: values[row] for name, values in table.columns.items()}
        try:
            return preference_parts(record, self.template, self.tokenizer)
        except ValueError as error:
            raise ValueError(f"{table.where(row)}: {error}") from None

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say what was cut and what was left out."""
        yield from super().remarks(split, rows)
        if equal := rows.facts.get("num_equal"):
            yield f"{equal} pairs of {split} were left out: as far as they are not cut, their answers are equal."
        if dropped := rows.facts.get("num_dropped"):
            yield (
                f"{dropped} pairs of {split} were left out: their prompts alone fill the {self.longest} tokens of "
                "`max_length`."
            )

    def pad_values(self) -> dict[str, int]:
        """Pad tokens as others are, and labels with what the loss leaves out."""
        return {f"{side}_{k}": v for side in SIDES for k, v in (("input_ids", self.pad_token_id), ("labels", IGNORED))}
