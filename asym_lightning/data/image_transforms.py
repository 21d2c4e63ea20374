"""From an image to what a model takes: size and normalisation are the model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms, tv_tensors
from torchvision.transforms import InterpolationMode, v2

from asym_lightning.core.messages import check_choice

Augmentation = Literal["none", "crop_flip", "domainbed"]
Transform = Callable[[Image.Image], Tensor]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageInput:
    """What a model takes.

    Args:
        size: Height and width.
        mean: Mean of each channel, which is subtracted; one channel means grey images.
        std: Standard deviation of each channel, by which it is divided.
        interpolation: How images are resized: `bilinear`, `bicubic` or `nearest`.
        crop_share: Share of the resized image that the centre crop keeps.

    Example:
        >>> config = {"input_size": (3, 384, 384), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
        >>> ImageInput.from_timm(config).size
        (384, 384)
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    crop_share: float = 1.0

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> ImageInput:
        """Read the data config of a timm model (`timm.data.resolve_model_data_config`)."""
        return cls(
            tuple(config["input_size"][1:]),
            tuple(config["mean"]),
            tuple(config["std"]),
            config["interpolation"],
            config.get("crop_pct") or 1.0,
        )

    def changed(
        self, size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> ImageInput:
        """Return the same with a square of another size, or another normalisation; None keeps what there is."""
        return replace(
            self,
            size=self.size if size is None else (size, size),
            mean=self.mean if mean is None else tuple(mean),
            std=self.std if std is None else tuple(std),
        )


def eval_transform(image_input: ImageInput, crop: bool = True) -> Transform:
    """Resize and normalise; the same for the same image, always.

    Args:
        image_input: What the model takes.
        crop: Cut the centre out of an image whose shorter side was resized; False squeezes the whole image into
            the size, as DomainBed does.
    """
    interpolation = InterpolationMode(image_input.interpolation)
    if not crop:
        return transforms.Compose([transforms.Resize(image_input.size, interpolation), *_to_tensor(image_input)])
    shorter = round(min(image_input.size) / image_input.crop_share)
    return transforms.Compose(
        [
            transforms.Resize(shorter, interpolation),
            transforms.CenterCrop(image_input.size),
            *_to_tensor(image_input),
        ]
    )


def train_transform(image_input: ImageInput, augmentation: Augmentation) -> Transform:
    """Augment and normalise.

    Args:
        image_input: What the model takes.
        augmentation: `none`; `crop_flip`, a random crop of at least half of the image, mirrored half the time; or
            `domainbed`, a crop of at least 0.7, mirrored, with jittered colours, grey one time in ten.

    Raises:
        ValueError: If there is no such augmentation.
    """
    check_choice("augmentation", augmentation, get_args(Augmentation))
    if augmentation == "none":
        return eval_transform(image_input)
    smallest = 0.7 if augmentation == "domainbed" else 0.5
    interpolation = InterpolationMode(image_input.interpolation)
    steps: list[Any] = [
        transforms.RandomResizedCrop(image_input.size, scale=(smallest, 1.0), interpolation=interpolation),
        transforms.RandomHorizontalFlip(),
    ]
    if augmentation == "domainbed":
        steps += [transforms.ColorJitter(0.3, 0.3, 0.3, 0.3), transforms.RandomGrayscale(0.1)]
    return transforms.Compose([*steps, *_to_tensor(image_input)])


def joint_transform(image_input: ImageInput, augmentation: Augmentation | None) -> Callable[..., Any]:
    """Return what resizes and normalises an image, and its mask or boxes with it, after augmenting all of them.

    Args:
        image_input: What the model takes.
        augmentation: As in `train_transform`; None squeezes the whole image into the model's size.
    """
    interpolation = InterpolationMode(image_input.interpolation)
    steps: list[Any] = [v2.Resize(image_input.size, interpolation, antialias=True)]
    if augmentation not in (None, "none"):
        smallest = 0.7 if augmentation == "domainbed" else 0.5
        crop = v2.RandomResizedCrop(image_input.size, (smallest, 1.0), interpolation=interpolation, antialias=True)
        steps = [crop, v2.RandomHorizontalFlip()]
    if augmentation == "domainbed":
        steps += [v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1)]
    if len(image_input.mean) == 1:
        steps.append(v2.Grayscale())
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    return v2.Compose([*steps, to_float, v2.Normalize(image_input.mean, image_input.std)])


def _to_tensor(image_input: ImageInput) -> list[Any]:
    to_grey = [transforms.Grayscale()] if len(image_input.mean) == 1 else []
    return [*to_grey, transforms.ToTensor(), transforms.Normalize(image_input.mean, image_input.std)]
