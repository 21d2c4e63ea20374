"""Images in one folder a class, and images without classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageChops
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from asym_lightning.core.messages import shortened
from asym_lightning.data.images.image_transforms import ImageInput
from asym_lightning.data.images.pillow import reading

FOR_PHOTOS = "vit_small_patch16_224.augreg_in21k"
"""A backbone of timm that reads photographs, small enough for one ordinary GPU."""
Sample = tuple[str, Any]
"""Path of an image and what is to be learnt of it, such as the number of its class; None where that is not known."""


class ImageFiles(Dataset):
    """Images from files, each in a pair with what is to be learnt of it, or alone where that is not known.

    Args:
        samples: Paths, and numbers of classes or the like.
        transform: From an image in colour to a tensor.
    """

    def __init__(self, samples: Sequence[Sample], transform: Callable[..., Any]) -> None:
        self.samples = list(samples)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def identifier(self, index: int) -> str:
        """Path of the image, which predictions go by."""
        return self.samples[index][0]

    def __getitem__(self, index: int) -> tuple[Tensor, Any] | Tensor:
        path, label = self.samples[index]
        image = self.transform(read_image(path))
        return image if label is None else (image, label)


def read_image(path: str) -> Image.Image:
    """Read an image, in colour.

    Raises:
        ValueError: If it is corrupt; the message names it.
    """
    with reading_image(path), Image.open(path) as image:
        return image.convert("RGB")


def check_image(path: str) -> None:
    """Check that a file begins as an image does; what comes after its header is not read.

    Raises:
        ValueError: If it does not; the message names it.
    """
    with reading_image(path), Image.open(path):
        pass


def reading_image(path: str) -> AbstractContextManager[None]:
    """Say what is wrong with an image that is not there, or that Pillow can't read, and how to leave it out."""
    advice = "; `skip_corrupt: true` leaves it out"
    if not os.path.isfile(path):
        raise ValueError(f"there is no image {shortened(path, 200)!r}{advice}.")
    return reading(path, advice)


def warn_of_lost_detail(path: str, image_input: ImageInput) -> None:
    """Warn, in one line, where a model would see but a shadow of an image: grey in place of colours, or a thumbnail.

    Args:
        path: One of the images to train on.
        image_input: What the model takes.
    """
    image = read_image(path)
    is_grey = len(image_input.mean) == 1
    red, green, blue = image.split()
    in_colour = any(ImageChops.difference(red, other).getbbox() for other in (green, blue))
    if (is_grey and in_colour) or min(image.size) >= 4 * max(image_input.size):
        height, width = image_input.size
        rank_zero_warn(
            f"The backbone reads {'grey ' * is_grey}images of {height} x {width}, and {path} has "
            f"{image.height} x {image.width}{' in colour' * in_colour}: one for photos sees more of it, such as "
            f"`--model.backbone {FOR_PHOTOS}`."
        )


def readable_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples whose images can be read, with a warning that counts and names the others.

    It reads every image, which takes a while for many.
    """
    readable, corrupt = [], []
    for sample in samples:
        try:
            read_image(sample[0])
            readable.append(sample)
        except ValueError:
            corrupt.append(sample[0])
    if corrupt:
        shown = ", ".join(corrupt[:5]) + (f" and {len(corrupt) - 5} more" if len(corrupt) > 5 else "")
        rank_zero_warn(f"{len(corrupt)} images cannot be read and were left out: {shown}.")
    return readable


def class_names(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones do not count."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def has_images(folder: Path) -> bool:
    """Whether there are images right in a folder."""
    return any(entry.is_file() and _is_image(entry) for entry in folder.iterdir())


def find_images(places: Sequence[str | Path]) -> list[Sample]:
    """Return images without classes: files as they are named, and all images in and below folders, by path.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a folder has no images.

    Example:
        >>> find_images(["nowhere"])
        Traceback (most recent call last):
        FileNotFoundError: there is no image or folder of images 'nowhere'.
    """
    samples: list[Sample] = []
    for place in map(Path, places):
        if place.is_file():
            samples.append((str(place), None))
            continue
        if not place.is_dir():
            raise FileNotFoundError(f"there is no image or folder of images {str(place)!r}.")
        found = sorted(path for path in place.rglob("*") if path.is_file() and _is_image(path))
        if not found:
            raise ValueError(f"{place} has no images ({', '.join(IMG_EXTENSIONS)}).")
        samples += [(str(path), None) for path in found]
    return samples


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")


def find_samples(folder: Path, names: Sequence[str], allow_missing: bool = False) -> list[Sample]:
    """Return the images of a folder with one folder a class, by class and then by path.

    Args:
        folder: The folder.
        names: The classes by number: one index for all folders that belong together.
        allow_missing: Accept that a class has no images here.

    Raises:
        ValueError: If there is a folder that is no class, or a class without images.
    """
    strays = [name for name in class_names(folder) if name not in names]
    if strays:
        raise ValueError(f"{folder} has folders that are none of the classes: {', '.join(strays[:5])}.")
    index = {name: number for number, name in enumerate(names) if (folder / name).is_dir()}
    samples = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS, allow_empty=True) if index else []
    found = {label for _, label in samples}
    missing = [name for number, name in enumerate(names) if number not in found]
    if missing and not allow_missing:
        raise ValueError(
            f"{folder} has no images of the class{'es' if len(missing) > 1 else ''} {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}; "
            "`allow_missing_classes: true` accepts that, and keeps the numbers of the classes."
        )
    return samples
