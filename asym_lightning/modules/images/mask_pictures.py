"""Masks as pictures: to look at, and to keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

NUM_COLOURS = 256


def palette() -> list[int]:
    """Red, green and blue of each class in turn, as PASCAL VOC has them: far apart for numbers that are near.

    >>> palette()[:12]
    [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    """
    bits = np.arange(NUM_COLOURS)[:, None] >> np.arange(8)[None] & 1  # of each number, the lowest first
    colours = np.zeros((NUM_COLOURS, 3), dtype=np.int64)
    for bit in range(8):
        colours[:, bit % 3] |= bits[:, bit] << (7 - bit // 3)
    return [int(value) for value in colours.flatten()]


def save_mask(mask: Tensor, path: Path, size: tuple[int, int]) -> None:
    """Write the classes of pixels (height, width) as a png with a palette.

    Args:
        mask: Class numbers, below 256.
        path: Where to.
        size: Width and height of the picture, to which the mask is brought.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask.to(torch.uint8).cpu().numpy())
    image = image.resize(size, Image.Resampling.NEAREST) if image.size != size else image
    image.putpalette(palette())
    image.save(path)


def overview(images: Tensor, targets: Tensor, predictions: Tensor) -> np.ndarray:
    """Return images, their masks and what is predicted, side by side: bytes (rows * height, 3 * width, 3).

    Args:
        images: Images (rows, channels, height, width), on any scale.
        targets: Classes of the pixels (rows, height, width); negative ones are shown white.
        predictions: Predicted classes of the pixels.
    """
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    pictures = ((images - low) / (high - low).clamp(min=1e-6)).float().cpu()
    pictures = pictures[:, :3] if pictures.shape[1] >= 3 else pictures[:, :1].expand(-1, 3, -1, -1)
    rows = torch.cat([pictures, _coloured(targets), _coloured(predictions)], dim=3)
    return (torch.cat(list(rows), dim=1).movedim(0, -1) * 255).byte().numpy()


def _coloured(masks: Tensor) -> Tensor:
    colours = torch.tensor(palette()).view(NUM_COLOURS, 3) / 255
    masks = masks.cpu()
    coloured = colours[masks.clamp(min=0) % NUM_COLOURS].where((masks >= 0)[..., None], 1.0)
    return coloured.movedim(-1, 1)
