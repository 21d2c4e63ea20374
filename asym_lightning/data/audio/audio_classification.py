"""Clips of audio with a class each: the user's own folders and tables, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asym_lightning.core.kinds import Count, LabelNames, NumberOrZero, Positive, Seed
from asym_lightning.data.audio.audio_data import AudioDataModule, AudioRows
from asym_lightning.data.audio.audio_folder import AudioFolder
from asym_lightning.data.found_label_names import FoundLabelNames
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.cells import UNLABELLED, class_names_in, class_reader, sorted_class_names
from asym_lightning.data.tables.record_file import RecordFile, with_validation
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable, is_missing


class AudioClassificationDataModule(FoundLabelNames, AudioDataModule):
    """Clips of audio with a class each, for `AudioClassifier`.

    A split is a folder with one folder a class, `train/<class>/*.wav`; a table of paths and labels, `.csv`, `.tsv`,
    `.jsonl`, `.json` or parquet, whose paths start from the table's folder; or a split of a hub's data set, such as
    `hf:owner/name:train`. To predict, a folder of audio without classes will do. Batches are `AudioClassifier`'s.

    Args:
        train: Training folder or table, or `hf:owner/name:split`; None where there is no training.
        val: Validation data; None sets `num_val` training clips apart.
        test: Test data.
        predict: Clips to predict, with or without labels; None means the test data.
        num_val: Number of training clips set apart, at random, where there is no `val`; 0 trains without validation.
        file_column: Column of the audio: paths of files, or the audio itself.
        label_column: Column of the labels.
        label_names: Names of the classes in the order of their numbers. None takes those of the training data, sorted,
            or else those that the model was trained on.
        feature_extractor: Name on the hub or local folder of the feature extractor; None takes that of the module's
            backbone.
        max_seconds: Longer clips are cut, with a warning; None leaves that to the feature extractor.
        resample: Resample clips that have another rate than the model takes; false refuses them.
        seed: Seed of the order of training rows and of the choice of validation rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no data is given, or a number is out of range.

    Example:
        >>> data = AudioClassificationDataModule(predict="clips", label_names=["yes", "no"])
        >>> list(data.sources()), data.label_names
        (['predict'], ['yes', 'no'])
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        num_val: NumberOrZero = 0,
        file_column: str = "file",
        label_column: str = "label",
        label_names: LabelNames | None = None,
        feature_extractor: Any = None,
        max_seconds: Positive | None = None,
        resample: bool = True,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(file_column, feature_extractor, max_seconds, resample, seed, num_train, loader)
        self.label_column = label_column
        self._sources = with_validation(split_sources(train, val, test, predict, self._local), num_val, seed)
        self.given_label_names = label_names

    def _local(self, path: Path) -> TextSource:
        return AudioFolder(path, self.file_column, self.label_column) if path.is_dir() else RecordFile(path)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the folders, tables, and splits of the hub."""
        return self._sources

    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data."""
        return class_names_in(table, self.label_column)

    def labels_of(self, found: Collection[str], source: str) -> list[str]:
        """Return the labels of the training data: numbers in their order, names sorted.

        Raises:
            ValueError: If there is but one.
        """
        return sorted_class_names(found, source, self.label_column)

    def fields(self, split: str, table: TextTable) -> Mapping[str, Sequence[Any]]:
        """Return the number of each clip's class; to predict, as far as it is known."""
        read = class_reader(self.label_names)
        if split != "predict":
            return {"labels": table.read_cells(self.label_column, read)}
        if self.label_column not in table.columns:
            return {"labels": [UNLABELLED] * len(table)}
        return {
            "labels": table.read_cells(self.label_column, lambda c: UNLABELLED if is_missing(c) or c == "" else read(c))
        }

    @property
    def longest(self) -> float | None:
        """Seconds that are read of a clip."""
        return self.max_seconds

    def remarks(self, split: str, rows: AudioRows) -> Iterator[str]:
        """Say how many clips are cut."""
        if self.max_seconds is not None and (cut := int((rows.clips.seconds > self.max_seconds).sum())):
            yield f"{cut} of the {len(rows)} clips of {split} are longer than {self.max_seconds:g} s and are cut."
