"""Texts or pairs of texts with a label or a score each: what `TextClassifier` learns from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asym_lightning.core.messages import shown
from asym_lightning.data.class_labels import class_reader, read_labels
from asym_lightning.data.text_table import TextTable, is_missing
from asym_lightning.data.tokenized_rows import Texts, TokenizedRows
from asym_lightning.data.tokenized_text import TokenizedTextDataModule, as_texts, identifiers

LARGEST_SCORE = 1e30
"""Beyond it the square of an error is no number any more."""


@dataclass(frozen=True)
class LabelledColumns:
    """Which columns hold what.

    Args:
        texts: One column of texts, or two for pairs.
        label: Column of labels or scores; None where there are none.
        identifier: Column that names each row; None numbers the rows from 0.
        adapter: Column that names the adapter of each row; None where there is none.
        is_label_required: Whether a row without a label is an error.
    """

    texts: tuple[str, ...]
    label: str | None
    identifier: str | None = None
    adapter: str | None = None
    is_label_required: bool = True


class LabelledTextDataModule(TokenizedTextDataModule):
    """Texts with labels: the part that GLUE and the user's own files have in common.

    Batches hold `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer's model has them, `labels` (class
    numbers, or scores in regression), `ids` (a list of texts), `adapters` (the same, where a column names them) and
    `row`.

    A subclass defines `sources` and `columns_of`, and sets the two attributes.

    Attributes:
        label_names: Names of the classes, by number; None in regression.
        score_range: Least and largest score in regression; None where any number will do.
    """

    label_names: Sequence[str] | None
    score_range: tuple[float, float] | None = None

    @abstractmethod
    def columns_of(self, split: str) -> LabelledColumns:
        """Return which columns of a split hold what."""

    def encoding(self, split: str) -> str:
        """Return the columns and the labels."""
        return repr((self.columns_of(split), self.label_names and list(self.label_names), self.score_range))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise the texts and turn the labels into numbers."""
        columns = self.columns_of(split)
        texts = [as_texts(table.column(name), table) for name in columns.texts]
        sequences, num_truncated = self.encode_texts(*texts)
        labels = self._labels(table, columns)
        texts_by_row = {"ids": identifiers(table, columns.identifier)}
        if columns.adapter is not None:
            names = table.column(columns.adapter)
            texts_by_row["adapters"] = Texts.of("" if is_missing(name) else str(name) for name in names)
        return TokenizedRows(
            sequences,
            numbers={"labels": labels},
            texts=texts_by_row,
            facts={"num_truncated": num_truncated},
        )

    def _labels(self, table: TextTable, columns: LabelledColumns) -> np.ndarray:
        required = columns.is_label_required
        if self.label_names is None:
            return np.array(read_labels(table, columns.label, self._score, math.nan, is_required=required), np.float32)
        return np.array(read_labels(table, columns.label, class_reader(self.label_names), is_required=required))

    def _score(self, value: Any) -> float:
        try:
            score = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"the score {shown(value)} is not a number.") from None
        low, high = self.score_range or (-LARGEST_SCORE, LARGEST_SCORE)
        if not low <= score <= high:
            raise ValueError(f"the score {score} is not in [{low}, {high}].")
        return score
