"""Files of COCO's layout of which something is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from asym_lightning.data import DetectionDataModule, LoaderOptions
from benchmarks.malformed import values
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import NO_FILES, Described
from tests.image_stand_ins import write_boxed_images

IMAGES, FILE, SIZE = 3, "boxes.json", 16
_LISTS = ("images", "annotations", "categories")


def _use(folder: Path, **options: Any) -> None:
    data = DetectionDataModule(folder / FILE, image_size=8, loader=LoaderOptions(batch_size=2), **options)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


BOXES = Described("boxes", FILE, lambda folder: write_boxed_images(folder, IMAGES, SIZE), _use)
NAMED = Described("boxes of named classes", FILE, BOXES.write, lambda folder: _use(folder, label_names=["cat"]))


def _changed(what: str, change: Callable[[dict[str, Any]], Any], *offenders: str) -> Case:
    def rewrite(folder: Path) -> None:
        content = json.loads((folder / FILE).read_text())
        change(content)
        (folder / FILE).write_text(json.dumps(content))

    return BOXES.case(what, rewrite, *offenders)


_NO_IDS = (None, [], {}, 99, "x", 1.5)
_NO_BOXES = (
    None, "x", 3, [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 0, 4], [1, 2, 4, 0], [1, 2, -3, 4], ["1", 2, 3, 4],
    [1, 2, math.nan, 4], [math.nan, 2, 3, 4], [1, 2, math.inf, 4], [True, 2, 3, 4], [SIZE, 0, 2, 2], [0, 99, 2, 2],
    [-5, 0, 8, 8], [1, 2, 10**400, 4], {"x": 1}, None,
)  # fmt: skip
_ENTRIES = {
    ("annotations", "bbox"): _NO_BOXES,
    ("annotations", "image_id"): _NO_IDS,
    ("annotations", "category_id"): _NO_IDS,
    ("images", "file_name"): NO_FILES,
    ("images", "id"): _NO_IDS[:3],
    ("categories", "id"): _NO_IDS[:3],
    ("categories", "name"): (None, [], 3),
}


@st.composite
def _entry_cases(draw: st.DrawFn) -> Case:
    (kind, key), wrongs = draw(st.sampled_from(list(_ENTRIES.items())))
    value = draw(st.sampled_from(wrongs))
    number = draw(st.integers(0, 1 if kind == "categories" else IMAGES - 1))
    one = {"images": "image", "annotations": "annotation", "categories": "category"}[kind]
    # An id that is no other's leaves those lost that went by it, which the message may say as well.
    where = (f"{FILE}, {one} {number}", *([f"{FILE}, annotation"] if key == "id" else []))
    return _changed(f"{key} of {one} {number} is {value!r:.40}", lambda c: c[kind][number].update({key: value}), *where)


@st.composite
def _list_cases(draw: st.DrawFn) -> Case:
    name, value = draw(st.sampled_from(_LISTS)), draw(values.not_lists_of_texts())
    return _changed(f"{name} is {value!r:.40}", lambda content: content.update({name: value}))


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    return [
        *(_changed(f"{name} is missing", lambda c, name=name: c.pop(name)) for name in _LISTS),
        *(_changed(f"{name} is empty", lambda c, name=name: c.update({name: []})) for name in _LISTS),
        _changed("nothing but a list", lambda c: c.clear()),
        _changed("an image twice", lambda c: c["images"].append(c["images"][0])),
        _changed("a category twice", lambda c: c["categories"].append(c["categories"][0])),
        _changed("crowds alone", lambda c: [a.update(iscrowd=1) for a in c["annotations"]]),
        NAMED.case("another class", lambda folder: None, f"{FILE}, annotation 0"),
        BOXES.case("a list", lambda folder: (folder / FILE).write_text("[]")),
        BOXES.case("an object a line", lambda folder: (folder / FILE).write_text("{}\n{}\n")),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _entry_cases(), _list_cases(), BOXES.bytes_in(FILE), BOXES.bytes_in("0.png"), BOXES.places(FILE),
        BOXES.places("0.png"), BOXES.cut(FILE, st.integers(0, 97)), BOXES.cut("0.png", st.integers(0, 90)),
    )  # fmt: skip
