"""Text classification and regression on the user's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, Names, Seed
from asym_lightning.data.class_labels import labels_in
from asym_lightning.data.found_labels import found_labels
from asym_lightning.data.labelled_text import LabelledColumns, LabelledTextDataModule
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.text_source import LocalFile, TextSource
from asym_lightning.data.text_table import TextTable
from asym_lightning.data.tokenized_text import as_text_columns


class TextFilesDataModule(LabelledTextDataModule):
    """Texts, or pairs of texts, with a class or a score, from csv, tsv, jsonl or parquet files.

    In tsv files quotes are a part of the text; csv files may put quotes around cells.

    Args:
        train: Training file; None where there is no training.
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
    """

    def __init__(
        self,
        train: str | Path | None = None,
        val: str | Path | None = None,
        test: str | Path | None = None,
        predict: str | Path | None = None,
        text_columns: Names = ("text",),
        label_column: str = "label",
        id_column: str | None = None,
        adapter_column: str | None = None,
        label_names: Sequence[str] | None = None,
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
        files = {"train": train, "val": val, "test": test, "predict": predict if predict is not None else test}
        self.files = {split: Path(file).expanduser() for split, file in files.items() if file is not None}
        if not self.files:
            raise ValueError("none of the files `train`, `val`, `test` and `predict` is given.")
        columns = as_text_columns(text_columns)
        if regression and label_names is not None:
            raise ValueError("`label_names` are for classes: leave them out where `regression` is true.")
        self.text_columns = columns
        self.label_column = label_column
        self.id_column = id_column
        self.adapter_column = adapter_column
        self.regression = regression
        self.skip_bad_rows = skip_bad_rows
        self._given_label_names = None if label_names is None else tuple(map(str, label_names))
        if twice := [name for name, count in Counter(self._given_label_names or ()).items() if count > 1]:
            raise ValueError(f"`label_names` has {twice[0]!r} twice; each class needs a name of its own.")

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files."""
        return {split: LocalFile(file, skip_bad_rows=self.skip_bad_rows) for split, file in self.files.items()}

    def columns_of(self, split: str) -> LabelledColumns:
        """Return which columns of a split hold what."""
        return LabelledColumns(
            self.text_columns, self.label_column, self.id_column, self.adapter_column, split != "predict"
        )

    def train_dataloader(self) -> DataLoader:
        """Training batches: rows of like length, in random order.

        Raises:
            ValueError: If there are no two classes to tell apart.
        """
        batches = super().train_dataloader()
        if self.label_names is not None and len(self.label_names) < 2:
            raise ValueError(
                f"{self.files['train']} has no label but {' '.join(self.label_names)!r} under {self.label_column!r}: "
                "name all classes by `label_names`, or set `regression: true`."
            )
        return batches

    @property
    def label_names(self) -> Sequence[str] | None:  # type: ignore[override]
        """Names of the classes, by number; None in regression.

        Raises:
            ValueError: If they are neither given, nor to be found in a training file, nor known to the model.
        """
        if self.regression:
            return None
        if self._given_label_names is None:
            names = found_labels(self.sources().get("train"), self.label_names_of_model, self._labels_in)
            if "train" not in self.files:  # another model may know others
                return names
            self._given_label_names = tuple(names)
        return self._given_label_names

    def _labels_in(self, table: TextTable) -> Sequence[str]:
        return labels_in(table, self.label_column)
