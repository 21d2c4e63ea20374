"""Images with a class for each pixel: the user's own folders and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from torch.utils.data import Dataset

from asym_lightning.core.kinds import Count, LabelNames, Range
from asym_lightning.data.images.image_data import Place, PlacedImagesDataModule
from asym_lightning.data.images.image_files import Sample, find_images
from asym_lightning.data.images.image_transforms import Augmentation, joint_transform
from asym_lightning.data.images.mask_files import MaskedImages, MaskValues, check_mask, find_mask
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.file_cells import file_in
from asym_lightning.data.tables.record_file import RecordFile


class SegmentationDataModule(PlacedImagesDataModule):
    """Images and their masks, for `SegmentationModule`.

    A split is a folder with `images` and `masks`, whose files have the same names, or a table (csv, tsv, jsonl, json,
    parquet) with a row an image. A mask is an indexed or grey picture, a png as a rule, of the size of its image; the
    values of its pixels are class numbers. An image and its mask are augmented at once. Batches are pairs: images
    (batch, channels, height, width), and class numbers (batch, height, width), -100 where a pixel does not count.

    Args:
        train: Folder or table of the training images; None where there is no training.
        val: Those of the validation; None trains without validation.
        test: Those of the test.
        predict: Images to predict: a folder of images, or a table; None means those of the test.
        label_names: Names of the classes, by the value of a pixel. None means the model's, as of a checkpoint.
        ignored_value: Value of pixels that do not count; None where all count.
        reduce_labels: 0 does not count, and the classes are the values from 1 on, as in ADE20K.
        folder: Where the files of a table are that go by relative paths; None takes the folder that the table is in.
        image_column: Column of the images' paths, in a table.
        mask_column: Column of the masks' paths, in a table.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an
            error; reads all images once when it starts.
        augmentation: What training images and masks go through: `none`, `crop_flip` (a random crop, mirrored half the
            time) or `domainbed` (that and jittered colours).
        image_size: Height and width of the model's images; None means the model's own. Other images are squeezed into
            it, and what is predicted of them is brought back to their size.
        mean: Mean of each channel; None means the model's own.
        std: Standard deviation of each channel; None means the model's own.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no split is given, or an argument is out of range.

    Example:
        >>> SegmentationDataModule("train", "val", label_names=["ground", "road"]).label_names
        ['ground', 'road']
    """

    def __init__(
        self,
        train: Place = None,
        val: Place = None,
        test: Place = None,
        predict: Place = None,
        label_names: LabelNames | None = None,
        ignored_value: Annotated[int, Range(0, 65535)] | None = 255,
        reduce_labels: bool = False,
        folder: Place = None,
        image_column: str = "file",
        mask_column: str = "mask",
        skip_corrupt: bool = False,
        augmentation: Augmentation = "crop_flip",
        image_size: Count | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        loader: LoaderOptions = LoaderOptions(batch_size=8, num_workers=2),
    ) -> None:
        super().__init__(
            train, val, test, predict, folder, skip_corrupt,
            augmentation=augmentation, image_size=image_size, mean=mean, std=std, loader=loader,
        )  # fmt: skip
        self.ignored_value, self.reduce_labels = ignored_value, reduce_labels
        self.image_column, self.mask_column = image_column, mask_column
        self._label_names = None if label_names is None else list(map(str, label_names))

    @property
    def label_names(self) -> list[str]:
        """Names of the classes by number: those given, or those of the model.

        Raises:
            ValueError: If there are neither.
        """
        names = self._label_names or self.label_names_of_model
        if names is None:
            raise ValueError("`label_names` must be given: no file says what the values of masks mean.")
        return names

    def setup(self, stage: str) -> None:
        """List the images that the stage needs, and look at the headers of their masks."""
        super().setup(stage)
        for samples in self.samples.values():
            for image, mask in samples:
                if mask is not None:
                    check_mask(image, mask)
        stems = Counter(Path(path).stem for path, _ in self.samples.get("predict", ()))
        if twice := [stem for stem, count in stems.items() if count > 1]:
            raise ValueError(f"two images to predict are called {twice[0]!r}, and so would their masks be.")

    def listed(self, split: str) -> list[Sample]:
        """Return the images of a folder or a table, with their masks."""
        place = self.places[split]
        return self._of_folder(place, split) if place.is_dir() else self._of_table(place, split)

    def _of_folder(self, place: Path, split: str) -> list[Sample]:
        images, masks = place / "images", place / "masks"
        if split == "predict" and not (images.is_dir() and masks.is_dir()):
            return find_images([images if images.is_dir() else place])
        for folder in (images, masks):
            if not folder.is_dir():
                raise FileNotFoundError(f"there is no folder {str(folder)!r} with the {folder.name} of {split}.")
        return [(path, str(find_mask(Path(path), masks))) for path, _ in find_images([images])]

    def _of_table(self, place: Path, split: str) -> list[Sample]:
        table = RecordFile(place).read()
        table.check_not_empty(split)
        images = table.read_cells(self.image_column, lambda cell: self.image_in(cell, place))
        if split == "predict" and self.mask_column not in table.columns:
            return [(image, None) for image in images]
        masks = table.read_cells(self.mask_column, lambda cell: str(file_in(cell, self.folder or place.parent)))
        return list(zip(images, masks, strict=True))

    def dataset(self, split: str) -> Dataset:
        """Return the images of a split with their masks; those of `train` are augmented."""
        values = MaskValues(len(self.label_names), self.ignored_value, self.reduce_labels)
        transform = joint_transform(self.image_input(), self.augmentation if split == "train" else None)
        return MaskedImages(self.samples[split], values, transform)
