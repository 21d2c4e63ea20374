"""Images and their masks of which something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from asym_lightning.data import LoaderOptions, SegmentationDataModule
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import NO_FILES, Described, write_rows
from tests.image_stand_ins import write_masked_images

ROWS, FILE, IMAGE, MASK, SIZE = 3, "train.jsonl", "images/0.png", "masks/0.png", 12


def _write(folder: Path) -> None:
    write_masked_images(folder, count=ROWS, size=SIZE)
    write_rows(folder / FILE, [{"file": f"images/{row}.png", "mask": f"masks/{row}.png"} for row in range(ROWS)])


def _table(folder: Path) -> None:
    _use(folder / FILE)


def _folder(folder: Path) -> None:
    _use(folder)


def _use(train: Path) -> None:
    loader = LoaderOptions(batch_size=2)
    data = SegmentationDataModule(train, label_names=["a", "b", "c"], image_size=8, loader=loader)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


TABLE = Described("a table of masks", FILE, _write, _table)
FOLDER = Described("a folder of masks", FILE, _write, _folder)
_KINDS = st.sampled_from([TABLE, FOLDER])


def _picture(mode: str, size: tuple[int, int] = (SIZE, SIZE), color: Any = 0) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, size, color).save(path)


_PICTURES = {
    "is in colour": _picture("RGB"),
    "has transparency": _picture("RGBA"),
    "is grey with transparency": _picture("LA"),
    "is wider": _picture("L", (SIZE + 1, SIZE)),
    "lies on its side": _picture("L", (SIZE, SIZE // 2)),
    "has a class that is none": _picture("L", color=3),
    "has a class of 16 bits that is none": _picture("I;16", color=1000),
    "has an index that is no class": lambda path: _indexed(path, 77),
}


def _indexed(path: Path, value: int) -> None:
    image = Image.fromarray(np.full((SIZE, SIZE), value, dtype=np.uint8))
    image.putpalette([7, 8, 9] * 256)
    image.save(path)


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    return [
        *(kind.replaced(MASK, what, write) for kind in (TABLE, FOLDER) for what, write in _PICTURES.items()),
        TABLE.case("no rows", lambda folder: (folder / FILE).write_text("")),
        FOLDER.case("two masks", lambda folder: _picture("L")(folder / "masks/0.bmp"), "0.png"),
        FOLDER.case("no masks", lambda folder: (folder / "masks").rename(folder / "mask"), "masks"),
        FOLDER.case("no images", lambda folder: [path.unlink() for path in (folder / "images").iterdir()], "images"),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    files = st.tuples(_KINDS, st.sampled_from([IMAGE, MASK]))
    return st.one_of(
        TABLE.cells({"file": NO_FILES, "mask": NO_FILES}, ROWS),
        TABLE.columns(["file", "mask"]),
        files.flatmap(lambda of: of[0].bytes_in(of[1])),
        files.flatmap(lambda of: of[0].cut(of[1], st.integers(0, 70))),
        files.filter(lambda of: of != (FOLDER, IMAGE)).flatmap(lambda of: of[0].places(of[1])),
        TABLE.places(FILE),
    )
