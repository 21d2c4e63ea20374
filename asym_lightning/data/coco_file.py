"""Files of COCO's layout: images, and boxes of objects in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asym_lightning.core.files import read_json
from asym_lightning.core.messages import not_one_of, shown

Object = tuple[list[float], int]
"""Left, top, width and height of a box, in pixels, and the number of its class."""


@dataclass(frozen=True)
class CocoFile:
    """The `images`, `annotations` and `categories` of a file.

    Args:
        path: The file.
        content: What it holds.
    """

    path: Path
    content: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Read a file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no JSON, or lacks one of the three lists.
        """
        content = read_json(path)
        for name in ("images", "annotations", "categories"):
            entries = content.get(name) if isinstance(content, dict) else None
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise ValueError(f"{path} has no list of objects `{name}`, as COCO's files have.")
        return cls(path, content)

    @property
    def label_names(self) -> list[str]:
        """Names of the categories, in the order of their ids."""
        categories = self.content["categories"]
        for number, category in enumerate(categories):
            if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
                raise ValueError(f"{self.path}, category {number}: it has no `id` and `name`, but {shown(category)}.")
        names = [category["name"] for category in sorted(categories, key=lambda category: int(category["id"]))]
        if not names:
            raise ValueError(f"{self.path} has no category.")
        return names

    def samples(self, folder: Path, label_names: Sequence[str]) -> list[tuple[str, list[Object]]]:
        """Return the images, each with the boxes in it; those of crowds are left out.

        Args:
            folder: Where the images are.
            label_names: Names of the classes by number.

        Raises:
            ValueError: If an image is not there, or an annotation does not fit; the message names file and number.
        """
        numbers = {name: number for number, name in enumerate(label_names)}
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        images = {image.get("id"): image for image in self.content["images"]}
        objects: dict[Any, list[Object]] = {key: [] for key in images}
        for number, annotation in enumerate(self.content["annotations"]):
            where = f"{self.path}, annotation {number}"
            if annotation.get("image_id") not in images:
                raise ValueError(f"{where}: there is no image with the id {shown(annotation.get('image_id'))}.")
            name = names.get(annotation.get("category_id"))
            if name is None:
                raise ValueError(f"{where}: there is no category with the id {shown(annotation.get('category_id'))}.")
            if name not in numbers:
                raise ValueError(f"{where}: {not_one_of('the category', name, label_names)}")
            if not annotation.get("iscrowd"):
                box = _box(where, annotation.get("bbox"), images[annotation["image_id"]])
                objects[annotation["image_id"]].append((box, numbers[name]))
        return [(self._file(folder, number, image), objects[image.get("id")])
                for number, image in enumerate(self.content["images"])]  # fmt: skip

    def _file(self, folder: Path, number: int, image: Mapping[str, Any]) -> str:
        name = image.get("file_name")
        if not isinstance(name, str) or not (folder / name).is_file():
            raise ValueError(f"{self.path}, image {number}: there is no file {shown(name)} in {folder}.")
        return str(folder / name)


def _box(where: str, box: Any, image: Mapping[str, Any]) -> list[float]:
    is_box = isinstance(box, list) and len(box) == 4 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in box
    )  # fmt: skip
    if not is_box or box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"{where}: `bbox` must be left, top, width and height, above 0, not {shown(box)}.")
    width, height = image.get("width"), image.get("height")
    if (
        isinstance(width, int)
        and isinstance(height, int)
        and (box[0] >= width or box[1] >= height or min(box[:2]) < -1)
    ):
        raise ValueError(
            f"{where}: `bbox` {shown(box)} begins outside of its image, which has {width} x {height} pixels."
        )
    return [float(value) for value in box]
