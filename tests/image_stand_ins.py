"""Small images in folders, in the layouts that the data modules read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from asym_lightning.data.domainbed import DATASETS


def write_images(folder: Path, classes: Sequence[str], per_class: int = 2, size: int = 16) -> Path:
    """Write `folder/<class>/<number>.png`, each class in a colour of its own."""
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in range(per_class):
            pixels = random.integers(0, 40, (size, size, 3)) + np.array([20 * number % 200, 90, 50])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{image}.png")
    return folder


def write_environments(root: Path, dataset: str, per_class: int = 3) -> Path:
    """Write a data set of DomainBed in its published layout below `root`, which is returned."""
    description = DATASETS[dataset]
    assert description.folder is not None
    classes = [f"class_{number:02d}" for number in range(description.num_classes)]
    for environment in description.environments:
        write_images(root / description.folder / environment, classes, per_class)
    return root


def write_masked_images(folder: Path, count: int, size: int = 32, seed: int = 0) -> Path:
    """Write `folder/images/<number>.png` and `folder/masks/<number>.png`: 0 is ground, 1 a red square, 2 a green disc.

    The outline of a disc does not count, which 255 says.
    """
    random = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:size, :size]
    for number in range(count):
        pixels, mask = random.integers(0, 60, (size, size, 3)), np.zeros((size, size), dtype=np.uint8)
        (top, left), side = random.integers(0, size // 2, 2), size // 3
        mask[top : top + side, left : left + side] = 1
        y, x = random.integers(size // 4, 3 * size // 4, 2)
        distance = np.hypot(rows - y, columns - x)
        mask[distance < size / 5] = 2
        pixels[mask == 1] += [150, 0, 0]
        pixels[mask == 2] += [0, 150, 0]
        mask[np.abs(distance - size / 5) < 0.5] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


def write_boxed_images(folder: Path, count: int, size: int = 32, seed: int = 0, in_quarters: bool = False) -> Path:
    """Write `folder/<number>.png` with a red or a blue rectangle each, and `folder/boxes.json` in COCO's layout.

    Rectangles fill one of the four quarters, or lie anywhere.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        pixels = random.integers(0, 60, (size, size, 3))
        left, top = random.integers(0, size // 2, 2).tolist()
        width, height = random.integers(size // 4, size // 2, 2).tolist()
        if in_quarters:
            (left, top), width, height = (random.integers(0, 2, 2) * (size // 2)).tolist(), size // 2, size // 2
        kind = int(random.integers(2))
        pixels[top : top + height, left : left + width, 2 * kind] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        images.append({"id": 10 + number, "file_name": f"{number}.png", "width": size, "height": size})
        box = [left, top, width, height]
        annotations.append({"id": number, "image_id": 10 + number, "category_id": [7, 3][kind], "bbox": box})
    categories = [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"
