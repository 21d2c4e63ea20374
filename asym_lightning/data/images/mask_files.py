"""Images with a class for each pixel, in pictures of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.images.image_files import ImageFiles, Sample, read_image, reading_image
from asym_lightning.data.images.pillow import reading

MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")


class MaskValues(NamedTuple):
    """What the values of a mask's pixels mean.

    Attributes:
        num_classes: Number of classes, which are the values from 0 on.
        ignored: Value of pixels that do not count; None where all count.
        reduced: Whether 0 does not count, and classes are the values from 1 on.
    """

    num_classes: int
    ignored: int | None = 255
    reduced: bool = False

    def classes(self, values: np.ndarray) -> np.ndarray:
        """Return class numbers, and -100 for pixels that do not count.

        Raises:
            ValueError: If a value is neither of a class nor of what does not count.

        Example:
            >>> MaskValues(2).classes(np.array([[0, 1], [255, 0]])).tolist()
            [[0, 1], [-100, 0]]
        """
        numbers = values.astype(np.int64) - self.reduced
        is_ignored = (values == self.ignored) if self.ignored is not None else np.zeros(values.shape, dtype=bool)
        is_ignored |= (numbers < 0) & self.reduced
        strays = np.unique(values[~is_ignored & ((numbers < 0) | (numbers >= self.num_classes))])
        if strays.size:
            first, last = int(self.reduced), self.num_classes - 1 + self.reduced
            what = "" if self.ignored is None else f", and {self.ignored} what does not count"
            raise ValueError(f"it has the value {strays[0]}, but the classes are {first} to {last}{what}.")
        return np.where(is_ignored, IGNORED, numbers)


class MaskedImages(ImageFiles):
    """Images in pairs with the class of each pixel, or alone where that is not known.

    Args:
        samples: Paths of images and of their masks, which are None where there are none.
        values: What the values of masks mean.
        transform: Of an image and its mask at once, as tensors of torchvision; of an image alone.
    """

    def __init__(self, samples: Sequence[Sample], values: MaskValues, transform: Callable[..., Any]) -> None:
        super().__init__(samples, transform)
        self.values = values

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | Tensor:
        path, mask = self.samples[index]
        image = read_image(path)
        pixels = tv_tensors.Image(functional.pil_to_tensor(image))
        if mask is None:
            alone: Tensor = self.transform(pixels)
            return alone.as_subclass(Tensor)
        pair = self.transform(pixels, tv_tensors.Mask(torch.tensor(read_mask(mask, self.values))))
        return pair[0].as_subclass(Tensor), pair[1].as_subclass(Tensor)


def read_mask(path: str, values: MaskValues) -> np.ndarray:
    """Read the class of each pixel (height, width) from an indexed or grey picture.

    Raises:
        ValueError: If it can't be read, or has other values; the message names it.
    """
    with reading(f"the mask {path}"), Image.open(path) as image:
        numbers = np.array(image)
    try:
        return values.classes(numbers)
    except ValueError as error:
        raise ValueError(f"the mask {path} does not fit: {error}") from None


def check_mask(image: str, mask: str) -> None:
    """Check by its header that a mask is one of an image.

    Raises:
        ValueError: If it is no indexed or grey picture, or of another size, or the image is none; the message names it.
    """
    with reading(f"the mask {mask}"), Image.open(mask) as picture:
        mode = picture.mode
    if not (mode in ("1", "L", "P") or mode.startswith("I")):
        raise ValueError(f"the mask {mask} holds no class for each pixel: it must be an indexed or a grey picture.")
    with reading_image(image), Image.open(image) as masked:
        sizes = [f"{height} x {width}" for width, height in (picture.size, masked.size)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"the mask {mask} has {sizes[0]} pixels, but its image {image} has {sizes[1]}.")


def find_mask(image: Path, folder: Path) -> Path:
    """Return the mask of an image: the file of its name in another folder.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [path for path in (folder / f"{image.stem}{suffix}" for suffix in MASKS) if path.is_file()]
    if len(found) != 1:
        what = "no mask" if not found else f"{len(found)} masks"
        raise ValueError(f"the image {image} has {what} {image.stem}.png in {folder}.")
    return found[0]
