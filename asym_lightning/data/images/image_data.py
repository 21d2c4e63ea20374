"""What data modules of images build on: they ask the model for size and normalisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset

from asym_lightning.core.kinds import Count
from asym_lightning.data.base import SPLITS, BatchDataModule
from asym_lightning.data.images.image_files import (
    ImageFiles,
    Sample,
    check_image,
    readable_samples,
    warn_of_lost_detail,
)
from asym_lightning.data.images.image_transforms import Augmentation, ImageInput, eval_transform, train_transform
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.file_cells import path_in

Place = str | Path | None
"""A folder or a file; None where there is none."""


class ImageDataModule(BatchDataModule):
    """What data modules of images have in common: they ask the model for size and normalisation.

    Args:
        augmentation: What training images go through: `none`, `crop_flip` or `domainbed`.
        image_size: Height and width of the model's images; None means the model's own.
        mean: Mean of each channel; None means the model's own.
        std: Standard deviation of each channel; None means the model's own.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        augmentation: Augmentation = "crop_flip",
        image_size: Count | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(loader)
        train_transform(ImageInput(), augmentation)  # only to check the name
        self.augmentation = augmentation
        self.image_size, self.mean, self.std = image_size, mean, std

    def image_input(self) -> ImageInput:
        """What the model takes: by its own data config, changed by this module's arguments.

        A model without a data config is given ImageNet's normalisation and 224 x 224 pixels.
        """
        module = getattr(self.trainer, "lightning_module", None)
        config = getattr(module, "data_config", None)
        model_input = ImageInput() if config is None else ImageInput.from_timm(config)
        return model_input.changed(self.image_size, self.mean, self.std)


class ListedImagesDataModule(ImageDataModule):
    """An `ImageDataModule` that lists the images of each split in its `setup`.

    Attributes:
        samples: Paths of the images with what is known of them, by split: `train`, `val`, `test`, and `predict` where
            there are other images to predict than those of the test.
    """

    samples: dict[str, list[Any]]

    def dataset(self, split: str) -> Dataset:
        """Return the images of a split; those of `train` are augmented."""
        image_input, augmentation = self.image_input(), self.augmentation if split == "train" else None
        transform = train_transform(image_input, augmentation) if augmentation else eval_transform(image_input)
        return ImageFiles(self.samples[split], transform)

    def train_dataloader(self) -> DataLoader:
        """Training batches, shuffled and augmented."""
        warn_of_lost_detail(self.samples["train"][0][0], self.image_input())
        return self.data_loader(self.dataset("train"), is_training=True, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation batches, not augmented."""
        return self.data_loader(self.dataset("val")) if self.samples.get("val") else []

    def test_dataloader(self) -> DataLoader:
        """Test batches, not augmented."""
        return self.data_loader(self.dataset("test"))

    def predict_dataloader(self) -> DataLoader:
        """The images to predict, or the test batches."""
        return self.data_loader(self.dataset("predict" if "predict" in self.samples else "test"))


class PlacedImagesDataModule(ListedImagesDataModule):
    """A `ListedImagesDataModule` with a place for each split, which it lists when a stage first needs it.

    A kind of data is a subclass with `listed`.

    Args:
        train: Where the training images are; None where there is no training.
        val: The same of the validation.
        test: The same of the test.
        predict: The same of the images to predict; None means those of the test.
        folder: Where the images are whose paths a file has; None takes the folder that the file is in.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an error.
        options: Those of `ImageDataModule`.

    Raises:
        ValueError: If no place is given.

    Attributes:
        places: Those that are given, by split.
        kind_of_place: What messages say before the names of the splits.
    """

    kind_of_place: ClassVar[str] = ""

    def __init__(
        self, train: Place, val: Place, test: Place, predict: Place, folder: Place, skip_corrupt: bool, **options: Any
    ) -> None:
        super().__init__(**options)
        self.skip_corrupt = skip_corrupt
        places = {"train": train, "val": val, "test": test, "predict": test if predict is None else predict}
        self.places = {split: Path(place).expanduser() for split, place in places.items() if place is not None}
        if not self.places:
            raise ValueError(f"none of {self.kind_of_place}`train`, `val`, `test` and `predict` is given.")
        self.folder = None if folder is None else Path(folder).expanduser()
        self.samples = {}

    @abstractmethod
    def listed(self, split: str) -> list[Sample]:
        """Return the images of a split with what is known of them."""

    def setup(self, stage: str) -> None:
        """List the images that the stage needs."""
        for split in SPLITS[stage]:
            if split in self.places and split not in self.samples:
                samples = self.listed(split)
                self.samples[split] = readable_samples(samples) if self.skip_corrupt else samples

    def image_in(self, cell: Any, place: Path) -> str:
        """Return the path of the image that a file names.

        Args:
            cell: What it names it by.
            place: The file.

        Raises:
            ValueError: If that is no path, or there is no image, unless such are left out anyway.
        """
        path = str(path_in(cell, self.folder or place.parent))
        if not self.skip_corrupt:
            check_image(path)
        return path
