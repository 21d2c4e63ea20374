"""Image classification on the user's own folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import DataLoader

from asym_lightning.core.kinds import Count
from asym_lightning.data.base import BatchDataModule
from asym_lightning.data.image_files import ImageFiles, Sample, class_names, find_samples, readable_samples
from asym_lightning.data.image_transforms import Augmentation, ImageInput, Transform, eval_transform, train_transform
from asym_lightning.data.loader_options import LoaderOptions


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


class ImageFolderDataModule(ImageDataModule):
    """Images in folders, `folder/train/<class>/*.jpg`, likewise `val` and `test`.

    The classes are the folders of `train`, sorted; the other splits have the same ones. Images are resized and
    normalised as the model's own data config says.

    Batches are pairs `(images, labels)`: images (batch, channels, height, width), labels (batch,).

    Args:
        folder: Folder that holds the splits.
        train: Name of the folder of training images.
        val: Name of the folder of validation images; None trains without validation.
        test: Name of the folder of test images; it is needed for testing and predicting alone.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an
            error; reads all images once when it starts.
        allow_missing_classes: Accept classes that have no images in a split.
        augmentation: What training images go through: `none`, `crop_flip` (a random crop, mirrored half the time)
            or `domainbed` (that and jittered colours).
        image_size: Height and width of the model's images; None means the model's own.
        mean: Mean of each channel; None means the model's own.
        std: Standard deviation of each channel; None means the model's own.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        FileNotFoundError: If a folder is missing.
        ValueError: If a split has no images, or other classes than the training folder.
    """

    def __init__(
        self,
        folder: str | Path,
        train: str = "train",
        val: str | None = "val",
        test: str = "test",
        skip_corrupt: bool = False,
        allow_missing_classes: bool = False,
        augmentation: Augmentation = "crop_flip",
        image_size: Count | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(augmentation=augmentation, image_size=image_size, mean=mean, std=std, loader=loader)
        self.folder = Path(folder).expanduser()
        self.split_folders = {"train": train, "val": val, "test": test}
        self.skip_corrupt = skip_corrupt
        self.allow_missing_classes = allow_missing_classes
        self.samples: dict[str, list[Sample]] = {}

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by number.

        Raises:
            FileNotFoundError: If there is no training folder to take them from.
        """
        return class_names(self._split_folder("train"))

    def setup(self, stage: str) -> None:
        """List the images that the stage needs."""
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}[stage]
        names = self.label_names
        if len(names) < 2:
            raise ValueError(
                f"{self._split_folder('train')} should have a folder for each class, and two at least; it has "
                f"{', '.join(names) or 'none'}."
            )
        for split in wanted:
            if self.split_folders[split] is not None and split not in self.samples:
                samples = find_samples(self._split_folder(split), names, self.allow_missing_classes)
                samples = readable_samples(samples) if self.skip_corrupt else samples
                if not samples:
                    raise ValueError(f"{self._split_folder(split)} has no images.")
                self.samples[split] = samples

    def train_dataloader(self) -> DataLoader:
        """Training batches, shuffled and augmented."""
        files = self._files("train", train_transform(self.image_input(), self.augmentation))
        return self.data_loader(files, is_training=True, shuffle=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Validation batches, not augmented."""
        return [] if self.split_folders["val"] is None else self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        """Test batches, not augmented."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader:
        """The test batches."""
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader:
        return self.data_loader(self._files(split, eval_transform(self.image_input())))

    def _files(self, split: str, transform: Transform) -> ImageFiles:
        return ImageFiles(self.samples[split], transform)

    def _split_folder(self, split: str) -> Path:
        name = self.split_folders[split]
        assert name is not None
        folder = self.folder / name
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r} with {split} images, one folder a class.")
        return folder
