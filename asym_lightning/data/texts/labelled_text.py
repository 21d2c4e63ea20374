"""Texts or pairs of texts with a label or a score each: what `TextClassifier` learns from."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asym_lightning.data.tables.cells import UNLABELLED, as_score, class_reader
from asym_lightning.data.tables.text_table import TextTable, is_missing
from asym_lightning.data.tokens.tokenized_rows import Texts, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule, as_texts, identifiers


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
        is_regression = self.label_names is None
        nothing = math.nan if is_regression else UNLABELLED
        dtype = np.float32 if is_regression else np.int64
        if columns.label is None or (columns.label not in table.columns and not columns.is_label_required):
            return np.full(len(table), nothing, dtype)
        read_label = class_reader(self.label_names) if self.label_names is not None else self._score

        def read(value: Any) -> float:
            is_unlabelled = value in (None, "", UNLABELLED, str(UNLABELLED))
            return nothing if is_unlabelled and not columns.is_label_required else read_label(value)

        return np.array(table.read_cells(columns.label, read), dtype)

    def _score(self, value: Any) -> float:
        return as_score(value, *(self.score_range or ()))
