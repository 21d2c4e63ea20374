"""Tables of images with their classes or values of which something is wrong."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from asym_lightning.data import ImageTableDataModule, LoaderOptions
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import NO_FILES, Described, write_rows
from tests.image_stand_ins import write_images

ROWS, FILE, IMAGE = 4, "train.jsonl", "x/0.png"


def _write(folder: Path) -> None:
    write_images(folder, ["x", "y"], per_class=2, size=8)
    rows = [{"file": f"{name}/{n}.png", "labels": [name], "label": name, "value": n} for name in "xy" for n in (0, 1)]
    write_rows(folder / FILE, rows)


def _use(folder: Path, **options: Any) -> None:
    data = ImageTableDataModule(folder / FILE, image_size=8, loader=LoaderOptions(batch_size=2), **options)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


def _of(name: str, **options: Any) -> Described:
    return Described(name, FILE, _write, functools.partial(_use, **options))


LABELS, LABEL, VALUE = _of("sets of classes"), _of("classes", target="label"), _of("values", target="value")
NAMED_SETS = _of("sets of named classes", label_names=["x", "y"])
NAMED = _of("named classes", target="label", label_names=["x", "y"])
_KINDS = st.sampled_from([LABELS, LABEL, VALUE])
_NO_SETS = (None, {"x": 1}, 3, [["x"]], [None], math.nan)
_NO_LABELS = (["x"], {"x": 1}, [None])
_NO_VALUES = (None, "", "x", "1,5", ["1"], {}, math.nan, "nan", math.inf, 1e300, True)


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    same = {"file": IMAGE, "label": "x", "labels": [], "value": 1}
    return [
        LABELS.case("no class at all", lambda folder: write_rows(folder / FILE, [same])),
        LABEL.case("no class at all", lambda folder: write_rows(folder / FILE, [{**same, "label": ""}] * 2)),
        LABEL.case("one class", lambda folder: write_rows(folder / FILE, [same] * 2)),
        *(kind.case("no rows", lambda folder: (folder / FILE).write_text("")) for kind in (LABELS, LABEL, VALUE)),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        LABELS.cells({"file": NO_FILES, "labels": _NO_SETS}, ROWS),
        LABEL.cells({"file": NO_FILES, "label": _NO_LABELS}, ROWS),
        VALUE.cells({"file": NO_FILES, "value": _NO_VALUES}, ROWS),
        NAMED_SETS.cells({"labels": (*_NO_SETS, "z", ["x", "z"], 7)}, ROWS),
        NAMED.cells({"label": (*_NO_LABELS, None, "", "z", 7, True)}, ROWS),
        LABELS.columns(["file", "labels"]),
        LABEL.columns(["file", "label"]),
        VALUE.columns(["file", "value"]),
        _KINDS.flatmap(lambda kind: kind.bytes_in(IMAGE)),
        _KINDS.flatmap(lambda kind: kind.cut(IMAGE, st.integers(0, 90))),
        _KINDS.flatmap(lambda kind: kind.places(IMAGE)),
        _KINDS.flatmap(lambda kind: kind.places(FILE)),
    )
