"""Image classification on the user's own folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asym_lightning.core.kinds import Count, FractionBelowOne, Seed
from asym_lightning.data.class_split import split_by_class
from asym_lightning.data.images.image_data import ListedImagesDataModule
from asym_lightning.data.images.image_files import (
    Sample,
    class_names,
    find_images,
    find_samples,
    has_images,
    readable_samples,
)
from asym_lightning.data.images.image_transforms import Augmentation
from asym_lightning.data.loader_options import LoaderOptions


class ImageFolderDataModule(ListedImagesDataModule):
    """Images in folders, `folder/train/<class>/*.jpg`, likewise `val` and `test`, or `folder/<class>/*.jpg`.

    A folder of classes without splits is divided here, at random, class by class, and the same way whenever the images
    are the same. The classes are the folders of `train`, or of `folder` itself, sorted; the other splits have the same
    ones. Where neither is there, as for testing what was trained elsewhere, they are the model's. Images are resized
    and normalised as the model's own data config says.

    Batches are pairs `(images, labels)`: images (batch, channels, height, width), labels (batch,). Those of `predict`
    are images alone.

    Args:
        folder: Folder that holds the splits, or the classes; None where there is nothing but images to `predict`.
        train: Name of the folder of training images.
        val: Name of the folder of validation images; None trains without validation.
        test: Name of the folder of test images; it is needed for testing and predicting alone.
        predict: Images to predict, without classes: files and folders, with all that is below them. None predicts the
            test images.
        val_fraction: Share of each class that is for validation, in a folder without splits.
        test_fraction: Share of each class that is for testing, in a folder without splits.
        split_seed: Seed of which image is in which split there; apart from the run's.
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
        ValueError: If there is neither a `folder` nor something to `predict`, a split has no images, or other classes
            than the training folder, or a class has too few images to be divided.

    Example:
        >>> ImageFolderDataModule(predict=["cat.jpg"]).label_names is None
        True
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        train: str = "train",
        val: str | None = "val",
        test: str = "test",
        predict: Sequence[str | Path] | str | Path | None = None,
        val_fraction: FractionBelowOne = 0.15,
        test_fraction: FractionBelowOne = 0.15,
        split_seed: Seed = 0,
        skip_corrupt: bool = False,
        allow_missing_classes: bool = False,
        augmentation: Augmentation = "crop_flip",
        image_size: Count | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(augmentation=augmentation, image_size=image_size, mean=mean, std=std, loader=loader)
        if folder is None and predict is None:
            raise ValueError("neither a `folder` of images is given, nor images to `predict`.")
        self.folder = None if folder is None else Path(folder).expanduser()
        self.split_folders = {"train": train, "val": val, "test": test}
        places = [predict] if isinstance(predict, (str, Path)) else predict or []
        self.predict = [Path(place).expanduser() for place in places]
        self.fractions = (0.0 if val is None else val_fraction, test_fraction)
        self.split_seed = split_seed
        self.skip_corrupt = skip_corrupt
        self.allow_missing_classes = allow_missing_classes
        self.samples = {}

    @property
    def label_names(self) -> list[str] | None:
        """Names of the classes, by number; None where there is neither a training folder nor a model to know them."""
        if self._has_no_splits:
            return class_names(self._folder)
        if self.folder is not None and (self._folder / str(self.split_folders["train"])).is_dir():
            return class_names(self._split_folder("train"))
        return self.label_names_of_model

    def setup(self, stage: str) -> None:
        """List the images that the stage needs."""
        if stage == "predict" and self.predict:
            self.samples["predict"] = self._readable(find_images(self.predict))
            return
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}[stage]
        names = self.label_names or class_names(self._split_folder("train"))
        if len(names) < 2:
            where = self._folder if self._has_no_splits else self._split_folder("train")
            raise ValueError(
                f"{where} should have a folder for each class, and two at least; it has {', '.join(names) or 'none'}."
            )
        if self._has_no_splits:
            self._divide(names)
            if "test" in wanted and not self.samples["test"]:
                raise ValueError("`test_fraction` is 0: there are no test images.")
        for split in wanted:
            if self.split_folders[split] is not None and split not in self.samples:
                self.samples[split] = self._found(self._split_folder(split), names)

    def _divide(self, names: Sequence[str]) -> None:
        if "train" not in self.samples:
            samples = self._found(self._folder, names)
            labels = [label for _, label in samples if label is not None]
            parts = split_by_class(labels, names, *self.fractions, self.split_seed)
            self.samples |= {split: [samples[number] for number in numbers] for split, numbers in parts.items()}

    def _found(self, folder: Path, names: Sequence[str]) -> list[Sample]:
        samples = self._readable(find_samples(folder, names, self.allow_missing_classes))
        if not samples:
            raise ValueError(f"{folder} has no images.")
        return samples

    def _readable(self, samples: list[Sample]) -> list[Sample]:
        return readable_samples(samples) if self.skip_corrupt else samples

    @property
    def _folder(self) -> Path:
        if self.folder is None:
            raise ValueError("there is no `folder` of images, only those to `predict`.")
        return self.folder

    @property
    def _has_no_splits(self) -> bool:
        """Whether the folder holds classes: folders with images right in them, and none that is a split."""
        if self.folder is None or not self.folder.is_dir():
            return False
        folders = {entry.name: entry for entry in self.folder.iterdir() if entry.is_dir()}
        return not folders.keys() & set(self.split_folders.values()) and any(map(has_images, folders.values()))

    def _split_folder(self, split: str) -> Path:
        name = self.split_folders[split]
        assert name is not None
        folder = self._folder / name
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {str(folder)!r} with {split} images, one folder a class"
                f"{'; `val: null` trains without' if split == 'val' else ''}."
            )
        return folder
