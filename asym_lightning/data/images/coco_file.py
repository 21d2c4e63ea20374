"""Files of COCO's layout: images, and boxes of objects in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from asym_lightning.core.files import read_json
from asym_lightning.core.messages import not_one_of, shown

Object = tuple[list[float], int]
"""Left, top, width and height of a box, in pixels, and the number of its class."""
Id = int | str
LARGEST = 1e6
"""Pixels that no image has in a row; NaN is not below it either."""
T = TypeVar("T")


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
        """Names of the categories, in the order of their ids; those of one name are one class."""
        categories = self.content["categories"]
        for number, category in enumerate(categories):
            if not isinstance(category.get("id"), int) or not isinstance(category.get("name"), str):
                raise ValueError(f"{self.path}, category {number}: it has no `id` and `name`, but {shown(category)}.")
        ordered = sorted(categories, key=lambda category: int(category["id"]))
        names = list(dict.fromkeys(category["name"] for category in ordered))
        if not names:
            raise ValueError(f"{self.path} has no category.")
        return names

    def samples(self, path_of: Callable[[Any], str], label_names: Sequence[str]) -> list[tuple[str, list[Object]]]:
        """Return the images, each with the boxes in it; those of crowds are left out.

        Args:
            path_of: Gives the path of an image that the file names.
            label_names: Names of the classes by number.

        Raises:
            ValueError: If an image is not there, or an annotation does not fit; the message names file and number.
        """
        numbers = {name: number for number, name in enumerate(label_names)}
        names = {key: category["name"] for key, category in self._by_id("category", self.content["categories"]).items()}
        images = self._by_id("image", self.content["images"])
        objects: dict[Any, list[Object]] = {key: [] for key in images}
        for number, annotation in enumerate(self.content["annotations"]):
            with self._at("annotation", number):
                image = _found(images, "image", annotation.get("image_id"))
                name = _found(names, "category", annotation.get("category_id"))
                if name not in numbers:
                    raise ValueError(not_one_of("the category", name, label_names))
                if not annotation.get("iscrowd"):
                    objects[annotation["image_id"]].append((_box(annotation.get("bbox"), image), numbers[name]))
        samples = []
        for number, image in enumerate(self.content["images"]):
            with self._at("image", number):
                samples.append((path_of(image.get("file_name")), objects[image["id"]]))
        return samples

    def _by_id(self, kind: str, entries: Sequence[Mapping[str, Any]]) -> dict[Id, Mapping[str, Any]]:
        found: dict[Id, Mapping[str, Any]] = {}
        for number, entry in enumerate(entries):
            with self._at(kind, number):
                if not isinstance(entry.get("id"), Id):
                    raise ValueError(f"its `id` must be a number or a text, not {shown(entry.get('id'))}.")
                if entry["id"] in found:
                    raise ValueError(f"there is another of the id {shown(entry['id'])} before it.")
                found[entry["id"]] = entry
        return found

    @contextmanager
    def _at(self, kind: str, number: int) -> Iterator[None]:
        """Begin what is wrong with an entry by where it stands."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path}, {kind} {number}: {error}") from None


def _found(entries: Mapping[Id, T], kind: str, key: Any) -> T:
    if not isinstance(key, Id) or key not in entries:
        raise ValueError(f"there is no {kind} with the id {shown(key)}.")
    return entries[key]


def _box(box: Any, image: Mapping[str, Any]) -> list[float]:
    is_box = isinstance(box, list) and len(box) == 4 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST for value in box
    )  # fmt: skip
    if not is_box or box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"`bbox` must be left, top, width and height, above 0, not {shown(box)}.")
    width, height = image.get("width"), image.get("height")
    if (
        isinstance(width, int)
        and isinstance(height, int)
        and (box[0] >= width or box[1] >= height or min(box[:2]) < -1)
    ):
        raise ValueError(f"`bbox` {shown(box)} begins outside of its image, which has {width} x {height} pixels.")
    return [float(value) for value in box]
