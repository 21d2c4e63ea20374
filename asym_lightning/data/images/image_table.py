"""Images that a table lists, each with its class, its classes or a value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from asym_lightning.core.kinds import Count, LabelNames
from asym_lightning.core.messages import check_choice
from asym_lightning.data.found_label_names import FoundLabelNames
from asym_lightning.data.images.image_data import Place, PlacedImagesDataModule
from asym_lightning.data.images.image_files import Sample
from asym_lightning.data.images.image_transforms import Augmentation
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.cells import (
    as_score,
    class_names_in,
    class_reader,
    set_names_in,
    set_reader,
    sorted_class_names,
    sorted_set_names,
)
from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable, is_missing

Target = Literal["labels", "label", "value"]


class ImageTableDataModule(FoundLabelNames, PlacedImagesDataModule):
    """Images that a table lists, for `MultiLabelImageClassifier`, `ImageClassifier` and `ImageRegressor`.

    Files are csv, tsv, `.jsonl`, `.json` (an array) or parquet, with a row an image. Batches are pairs: images (batch,
    channels, height, width), and 0 or 1 of each class (batch, classes), class numbers (batch,) or values (batch,).
    Those to predict are images alone where a row has no target.

    Args:
        train: Table of the training images; None where there is no training.
        val: Table of the validation images; None trains without validation.
        test: Table of the test images.
        predict: Table of the images to predict, with or without targets; None means that of the test.
        folder: Where the images are that go by a relative path; None takes the folder that their table is in.
        target: What the model learns: `labels`, any number of classes an image; `label`, one; or `value`, a number.
        image_column: Column of the images' paths.
        target_column: Column of the targets; None means the one named as `target` is.
        separator: What stands between the classes in one cell.
        label_names: Names of the classes in the order of their numbers. None takes those of the training data, sorted,
            or else those that the model was trained on.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an
            error; reads all images once when it starts.
        augmentation: What training images go through: `none`, `crop_flip` (a random crop, mirrored half the time)
            or `domainbed` (that and jittered colours).
        image_size: Height and width of the model's images; None means the model's own.
        mean: Mean of each channel; None means the model's own.
        std: Standard deviation of each channel; None means the model's own.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no table is given, or `target` is none of the three.

    Example:
        >>> data = ImageTableDataModule("train.csv", label_names=["cat", "dog"])
        >>> list(data.sources()), data.label_names
        (['train'], ['cat', 'dog'])
    """

    kind_of_place = "the tables "

    def __init__(
        self,
        train: Place = None,
        val: Place = None,
        test: Place = None,
        predict: Place = None,
        folder: Place = None,
        target: Target = "labels",
        image_column: str = "file",
        target_column: str | None = None,
        separator: str = ",",
        label_names: LabelNames | None = None,
        skip_corrupt: bool = False,
        augmentation: Augmentation = "crop_flip",
        image_size: Count | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(
            train, val, test, predict, folder, skip_corrupt,
            augmentation=augmentation, image_size=image_size, mean=mean, std=std, loader=loader,
        )  # fmt: skip
        check_choice("target", target, get_args(Target))
        if target == "value" and label_names is not None:
            raise ValueError("`label_names` are for classes: leave them out where `target` is `value`.")
        self.target = target
        self.image_column = image_column
        self.target_column = target if target_column is None else target_column
        self.separator = separator
        self.given_label_names = label_names

    def sources(self) -> Mapping[str, TextSource]:
        """Return the tables."""
        return {split: RecordFile(file) for split, file in self.places.items()}

    @property
    def label_names(self) -> list[str] | None:  # type: ignore[override]
        """Names of the classes, by number; None of values."""
        return None if self.target == "value" else super().label_names

    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data."""
        if self.target == "labels":
            return set_names_in(table, self.target_column, self.separator)
        return class_names_in(table, self.target_column)

    def labels_of(self, found: Collection[str], source: str) -> list[str]:
        """Return the classes of the training data, sorted.

        Raises:
            ValueError: If there is none, or but one where each image has one.
        """
        if self.target == "labels":
            return sorted_set_names(found, source, self.target_column)
        return sorted_class_names(found, source, self.target_column, ", or set `target: value`")

    def listed(self, split: str) -> list[Sample]:
        """Return the images of a table, with their targets."""
        table = self.sources()[split].read()
        table.check_not_empty(split)
        images = table.read_cells(self.image_column, lambda cell: self.image_in(cell, self.places[split]))
        return list(zip(images, self._targets(table, split), strict=True))

    def _targets(self, table: TextTable, split: str) -> list[Any]:
        cells = table.columns.get(self.target_column)
        if split == "predict" and (cells is None or any(map(is_missing, cells))):
            return [None] * len(table)
        return table.read_cells(self.target_column, self._reader())

    def _reader(self) -> Callable[[Any], Any]:
        if self.label_names is None:
            return lambda cell: torch.tensor(as_score(cell))
        if self.target == "label":
            return class_reader(self.label_names)
        numbers, nothing = set_reader(self.label_names, self.separator), torch.zeros(len(self.label_names)).long()
        return lambda cell: nothing.index_fill(0, torch.tensor(numbers(cell), dtype=torch.int64), 1)
