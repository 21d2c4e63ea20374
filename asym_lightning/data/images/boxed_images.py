"""Images with boxes of objects in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from asym_lightning.data.images.image_files import ImageFiles, read_image


class BoxedImages(ImageFiles):
    """Images with the boxes in them, or alone where these are not known.

    Args:
        samples: Paths of images and the boxes in them, which are None where they are not known.
        transform: Of an image and its targets at once, as tensors of torchvision.
    """

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor] | None]:
        path, objects = self.samples[index]
        image = read_image(path)
        boxes = tv_tensors.BoundingBoxes(
            torch.tensor([box for box, _ in objects or ()], dtype=torch.float32).view(-1, 4),
            format=tv_tensors.BoundingBoxFormat.XYWH,
            canvas_size=(image.height, image.width),
        )  # type: ignore[call-overload]
        labels = torch.tensor([label for _, label in objects or ()], dtype=torch.int64)
        pixels, target = self.transform(
            tv_tensors.Image(functional.pil_to_tensor(image)), {"boxes": boxes, "labels": labels}
        )
        pixels = pixels.as_subclass(Tensor)
        if objects is None:
            return pixels, None
        height, width = pixels.shape[-2:]
        boxes = functional.convert_bounding_box_format(target["boxes"], new_format="CXCYWH").as_subclass(Tensor)
        return pixels, {"boxes": boxes / torch.tensor([width, height] * 2), "labels": target["labels"]}


def collate(samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, list[Any]] | Tensor:
    """Return images as one tensor, in a pair with a list of their targets, or alone where these are not known."""
    images, targets = torch.stack([image for image, _ in samples]), [target for _, target in samples]
    return images if targets[0] is None else (images, targets)
