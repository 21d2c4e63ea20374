"""Pairs of texts of like meaning, triplets and scored pairs: the user's own files, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, Names, Positive, Seed, as_names
from asym_lightning.core.messages import shown
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.cells import as_score
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule, identifiers

SIDES = ("anchor_", "positive_", "negative_")


class SentencePairDataModule(TokenizedTextDataModule):
    """Texts for `SentenceEncoder`: pairs that mean the same, with a text that does not where there is one, or scores.

    Files are `.jsonl`, `.json` (an array), csv, tsv or parquet, or a split of a hub's data set, such as
    `hf:owner/name:train`. One with a column of scores holds scored pairs, whatever the other splits hold. Batches are
    `SentenceEncoder`'s.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File of texts to embed; None means the test file, the first text of each row.
        pair_columns: Columns of texts and of those that mean the same.
        negative_column: Column of texts that mean something else, in files that have it.
        scored_columns: Columns of the texts of scored pairs.
        score_column: Column of how alike these are.
        largest_score: Score of texts that mean the same, by which scores are divided; in STS-B's own files it is 5.
        text_column: Column of the texts to embed.
        id_column: Column that names each row in the file of predictions; None numbers the rows from 0.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest text, in tokens; longer ones are cut, with a warning. None means what the model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, in pairs, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, there are not two columns of pairs, or a number is out of range.

    Example:
        >>> list(SentencePairDataModule("pairs.jsonl", val="scored.tsv").sources())
        ['train', 'val']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        pair_columns: Names = ("anchor", "positive"),
        negative_column: str = "negative",
        scored_columns: Names = ("sentence1", "sentence2"),
        score_column: str = "score",
        largest_score: Positive = 1.0,
        text_column: str = "text",
        id_column: str | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(batch_size=64),
    ) -> None:
        super().__init__(tokenizer, max_length, cache_dir, seed, num_train, loader)
        self._sources = split_sources(train, val, test, predict)
        self.pair_columns, self.scored_columns = as_names(pair_columns), as_names(scored_columns)
        for name, columns in (("pair_columns", self.pair_columns), ("scored_columns", self.scored_columns)):
            if len(columns) != 2:
                raise ValueError(f"`{name}` must name two columns, not {list(columns)}.")
        self.negative_column, self.score_column, self.largest_score = negative_column, score_column, largest_score
        self.text_column, self.id_column = text_column, id_column

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def encoding(self, split: str) -> str:
        """Return the columns, and what scores are divided by."""
        pairs = (self.pair_columns, self.negative_column, self.scored_columns, self.score_column, self.largest_score)
        return repr((pairs, self.text_column, self.id_column, split == "predict"))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise the texts of each side, and scale the scores."""
        is_scored = self.score_column in table.columns
        columns = self.scored_columns if is_scored else self.pair_columns
        sequences: dict[str, Ragged] = {}
        num_truncated = 0
        if split == "predict":
            known = [name for name in (self.text_column, columns[0]) if name in table.columns]
            sides = {"": known[0] if known else self.text_column}
        else:
            has_negatives = not is_scored and self.negative_column in table.columns
            sides = dict(zip(SIDES, [*columns, *[self.negative_column] * has_negatives], strict=False))
        for side, column in sides.items():
            texts = table.read_cells(column, partial(_text, column))
            tokenized, num_cut = self.encode_texts(texts)
            sequences[f"{side}input_ids"], num_truncated = tokenized["input_ids"], num_truncated + num_cut
        scores: dict[str, np.ndarray] = {}
        if is_scored and split != "predict":
            read = partial(_scaled, self.largest_score)
            scores["scores"] = np.array(table.read_cells(self.score_column, read), np.float32)
        names = {"ids": identifiers(table, self.id_column)}
        return TokenizedRows(sequences, scores, names, {"num_truncated": num_truncated})

    def train_dataloader(self) -> DataLoader:
        """Training batches: rows of like length, in random order.

        Raises:
            ValueError: If a batch is a single pair, which has nothing to be told from.
        """
        if self.batch_size == 1 and {"scores", "negative_input_ids"}.isdisjoint(self._rows("train")[0]):
            raise ValueError("`loader.batch_size` must be at least 2: the other pairs of a batch are its negatives.")
        return super().train_dataloader()

    def pad_values(self) -> dict[str, int]:
        """Pad each side as others are."""
        return {f"{side}input_ids": self.pad_token_id for side in SIDES}


def _text(column: str, cell: Any) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise ValueError(f"`{column}` must be a text that is not empty, not {shown(cell)}.")
    return cell


def _scaled(largest: float, cell: Any) -> float:
    score = as_score(cell)
    if abs(score) > largest:
        raise ValueError(f"the score {score:g} is larger than `largest_score`, {largest:g}.")
    return score / largest
