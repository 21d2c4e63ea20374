"""Images with boxes of objects, in files of COCO's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from asym_lightning.core.kinds import Count, LabelNames
from asym_lightning.data.images.boxed_images import BoxedImages, collate
from asym_lightning.data.images.coco_file import CocoFile
from asym_lightning.data.images.image_data import Place, PlacedImagesDataModule
from asym_lightning.data.images.image_files import Sample, find_images
from asym_lightning.data.images.image_transforms import Augmentation, joint_transform
from asym_lightning.data.loader_options import LoaderOptions


class DetectionDataModule(PlacedImagesDataModule):
    """Images with boxes of objects, for `ObjectDetector`.

    A split is a json file of COCO's layout. Batches are pairs: images (batch, channels, height, width), and for each
    image its `boxes` (n, 4), by centre, width and height as shares of the image, and their `labels` (n,). Images and
    their boxes are augmented at once. Boxes of crowds are left out.

    Args:
        train: File of the training images; None where there is no training.
        val: That of the validation; None trains without validation.
        test: That of the test.
        predict: Images to predict: a folder of images, or a file; None means those of the test.
        folder: Where the images are; None takes the folder that their file is in.
        label_names: Names of the classes in the order of their numbers. None takes the categories of the training file,
            by their ids, or else those that the model was trained on.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an
            error; reads all images once when it starts.
        augmentation: What training images go through: `none`, `crop_flip` (a random crop, mirrored half the time) or
            `domainbed` (that and jittered colours).
        image_size: Height and width of the model's images; None means 224. Images are squeezed into it.
        mean: Mean of each channel; None means ImageNet's.
        std: Standard deviation of each channel; None means ImageNet's.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no split is given.

    Example:
        >>> DetectionDataModule(test="boxes.json", label_names=["cat", "dog"]).label_names
        ['cat', 'dog']
    """

    def __init__(
        self,
        train: Place = None,
        val: Place = None,
        test: Place = None,
        predict: Place = None,
        folder: Place = None,
        label_names: LabelNames | None = None,
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
        self.given_label_names = label_names

    @property
    def label_names(self) -> list[str]:
        """Names of the classes by number: those given, of the training file, or of the model.

        Raises:
            ValueError: If there is nothing to take them from.
        """
        if self.given_label_names is None:
            train, of_model = self.places.get("train"), self.label_names_of_model
            if of_model is not None and (train is None or not train.is_file()):
                return of_model
            if train is None:
                raise ValueError("`label_names` must be given where there is neither a training file nor a checkpoint.")
            self.given_label_names = CocoFile.read(train).label_names
        return list(self.given_label_names)

    def listed(self, split: str) -> list[Sample]:
        """Return the images of a folder, or those of a file with their boxes."""
        place = self.places[split]
        if place.is_dir():
            return find_images([place])
        samples: list[Sample] = []
        samples += CocoFile.read(place).samples(lambda name: self.image_in(name, place), self.label_names)
        if not samples:
            raise ValueError(f"{place} has no image.")
        if split == "train" and not any(objects for _, objects in samples):
            raise ValueError(f"{place} has no box to learn from, but those of crowds, which are left out.")
        return samples

    def dataset(self, split: str) -> Dataset:
        """Return the images of a split with their boxes; those of `train` are augmented."""
        if split != "train":
            return BoxedImages(self.samples[split], joint_transform(self.image_input(), None))
        augmented = joint_transform(self.image_input(), self.augmentation)
        # A crop leaves of some boxes nothing; in evaluation all count, however small they are.
        return BoxedImages(self.samples[split], v2.Compose([augmented, v2.SanitizeBoundingBoxes(min_size=1)]))

    def data_loader(self, dataset: Dataset, *, is_training: bool = False, **arguments: Any) -> DataLoader:
        """Return batches whose targets are a list."""
        return super().data_loader(dataset, is_training=is_training, collate_fn=collate, **arguments)
