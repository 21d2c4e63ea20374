"""Text classification and regression on the user's own files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, LabelNames, Names, Seed
from asym_lightning.data.found_label_names import FoundLabelNames
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.cells import class_names_in, sorted_class_names
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import LocalFile, TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.texts.labelled_text import LabelledColumns, LabelledTextDataModule
from asym_lightning.data.tokens.tokenized_text import as_text_columns


class TextFilesDataModule(FoundLabelNames, LabelledTextDataModule):
    """Texts, or pairs of texts, with a class or a score, from csv, tsv, jsonl or parquet files.

    Any of them may be a split of a data set on the hub, such as `hf:stanfordnlp/imdb:train`. In tsv files quotes are a
    part of the text; csv files may put quotes around cells.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File to predict, with or without labels; None means the test file.
        text_columns: Column of the texts, or the two columns of the pairs.
        label_column: Column of the classes or scores.
        id_column: Column that names each row in the file of predictions; None numbers the rows from 0.
        adapter_column: Column that names the adapter of each row, for `RowAdapters`; an empty cell means none. None
            means that there is no such column.
        label_names: Names of the classes in the order of their numbers. Files hold names or numbers. None takes
            the distinct labels of the training file, sorted, or else those that the model was trained on.
        regression: The label is a score, not a class.
        skip_bad_rows: Leave out rows that cannot be read, with a warning that counts them, instead of an error.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; longer ones are truncated, with one warning that counts them. None
            means what the tokenizer's model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, there are not one or two text columns, or a number is out of range.

    Example:
        >>> TextFilesDataModule("train.csv", label_names=["bad", "good"]).label_names
        ['bad', 'good']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        text_columns: Names = ("text",),
        label_column: str = "label",
        id_column: str | None = None,
        adapter_column: str | None = None,
        label_names: LabelNames | None = None,
        regression: bool = False,
        skip_bad_rows: bool = False,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            max_length=max_length,
            cache_dir=cache_dir,
            seed=seed,
            num_train=num_train,
            loader=loader,
        )
        self._sources = split_sources(
            train, val, test, predict, lambda path: LocalFile(path, skip_bad_rows=skip_bad_rows)
        )
        if regression and label_names is not None:
            raise ValueError("`label_names` are for classes: leave them out where `regression` is true.")
        self.text_columns = as_text_columns(text_columns)
        self.label_column = label_column
        self.id_column = id_column
        self.adapter_column = adapter_column
        self.regression = regression
        self.given_label_names = label_names

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def columns_of(self, split: str) -> LabelledColumns:
        """Return which columns of a split hold what."""
        return LabelledColumns(
            self.text_columns, self.label_column, self.id_column, self.adapter_column, split != "predict"
        )

    @property
    def label_names(self) -> list[str] | None:  # type: ignore[override]
        """Names of the classes, by number; None in regression."""
        return None if self.regression else super().label_names

    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data."""
        return class_names_in(table, self.label_column)

    def labels_of(self, found: Collection[str], source: str) -> list[str]:
        """Return the labels of the training data: numbers in their order, names sorted.

        Raises:
            ValueError: If one is no text, or there is but one.
        """
        return sorted_class_names(found, source, self.label_column, ", or set `regression: true`")
