"""Texts of which each may be of several classes: the user's own records, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, LabelNames, Names, Seed
from asym_lightning.data.found_label_names import FoundLabelNames
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.cells import set_names_in, set_reader, sorted_set_names
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable, is_missing
from asym_lightning.data.tokens.tokenized_rows import Ragged, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule, as_text_columns, as_texts, identifiers

NO_CLASS = -1


class MultiLabelTextDataModule(FoundLabelNames, TokenizedTextDataModule):
    """Texts, or pairs of texts, with any number of classes each, for `MultiLabelTextClassifier`.

    Files are `.jsonl`, `.json` (an array), csv, tsv or parquet, or a split of a hub's data set, such as
    `hf:owner/name:train`. The classes of a text are a list, or one cell in which `separator` stands between them.
    Batches are `MultiLabelTextClassifier`'s.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File to predict, with or without classes; None means the test file.
        text_columns: Column of the texts, or the two columns of the pairs.
        labels_column: Column of the classes.
        id_column: Column that names each row in the file of predictions; None numbers the rows from 0.
        separator: What stands between the classes in one cell.
        label_names: Names of the classes in the order of their numbers. None takes those of the training data, sorted,
            or else those that the model was trained on.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; longer ones are cut, with a warning. None means what the model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, there are not one or two text columns, or a number is out of range.

    Example:
        >>> MultiLabelTextDataModule("train.jsonl", label_names=["joy", "fear"]).label_names
        ['joy', 'fear']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        text_columns: Names = ("text",),
        labels_column: str = "labels",
        id_column: str | None = None,
        separator: str = ",",
        label_names: LabelNames | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(tokenizer, max_length, cache_dir, seed, num_train, loader)
        self._sources = split_sources(train, val, test, predict)
        self.text_columns = as_text_columns(text_columns)
        self.labels_column = labels_column
        self.id_column = id_column
        self.separator = separator
        self.given_label_names = label_names

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data."""
        return set_names_in(table, self.labels_column, self.separator)

    def labels_of(self, found: Collection[str], source: str) -> list[str]:
        """Return the classes of the training data, sorted.

        Raises:
            ValueError: If there is none.
        """
        return sorted_set_names(found, source, self.labels_column)

    def _labels(self, table: TextTable, split: str) -> list[list[int]]:
        if split == "predict" and self.labels_column not in table.columns:
            return [[]] * len(table)
        read = set_reader(self.label_names, self.separator)
        return table.read_cells(
            self.labels_column, lambda cell: [] if split == "predict" and is_missing(cell) else read(cell)
        )

    def encoding(self, split: str) -> str:
        """Return the columns and the classes."""
        columns = (self.text_columns, self.labels_column, self.id_column, self.separator)
        return repr((columns, self.label_names, split == "predict"))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise the texts and number their classes."""
        labels = self._labels(table, split)
        sequences, num_truncated = self.encode_texts(*(as_texts(table.column(n), table) for n in self.text_columns))
        sequences["labels"] = Ragged.of(labels)
        texts = {"ids": identifiers(table, self.id_column)}
        return TokenizedRows(sequences, texts=texts, facts={"num_truncated": num_truncated})

    def pad_values(self) -> dict[str, int]:
        """Pad classes with what is none."""
        return {"labels": NO_CLASS}
