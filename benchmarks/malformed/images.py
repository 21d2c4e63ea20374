"""Folders of images of which something is wrong."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from asym_lightning.data import ImageFolderDataModule, LoaderOptions
from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case

BAD = "train/cat/bad.png"


def _write_good(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(folder / split / name / "0.png")


def _use(folder: Path, **options: Any) -> None:
    loader = LoaderOptions(batch_size=4, num_workers=0)
    data = ImageFolderDataModule(folder, image_size=8, mean=[0.5] * 3, std=[0.5] * 3, loader=loader, **options)
    data.setup("fit")
    for batches in (data.train_dataloader(), data.val_dataloader()):
        for _ in batches:
            pass


def _encoded(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that declares a size and holds something else."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _case(what: str, name: str, write: Callable[[Path], Any], **options: Any) -> Case:
    def make(folder: Path) -> None:
        _write_good(folder)
        write(folder / name)

    offenders = (name, Path(name).name)
    return Case(f"{name}: {what}", offenders, make, lambda folder: _use(folder, **options))


@st.composite
def _byte_cases(draw: st.DrawFn) -> Case:
    data, form = draw(values.bytes_of_nothing()), draw(st.sampled_from(["png", "jpg", "bmp", "webp", "tiff"]))
    name = str(Path(BAD).with_suffix(f".{form}"))
    return _case(f"{data!r:.60}", name, lambda path: path.write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    form, share = draw(st.sampled_from(["png", "jpeg", "bmp", "webp"])), draw(st.integers(0, 90))
    data = _encoded(form)
    name = str(Path(BAD).with_suffix(f".{form}"))
    return _case(f"cut to {share}%", name, lambda path: path.write_bytes(data[: len(data) * share // 100]))


@st.composite
def _size_cases(draw: st.DrawFn) -> Case:
    width = draw(st.sampled_from([0, 1, 2**16, 2**20, 2**31 - 1, 2**32 - 1]))
    height = draw(st.sampled_from([0, 2**15, 2**20, 2**31 - 1]))
    return _case(f"declares {width} x {height}", BAD, lambda path: path.write_bytes(_png(width, height)))


_NO_FILES = tuple(kind for kind in PLACES if kind not in ("missing", "a folder"))


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(_NO_FILES))
    return _case(f"is {kind}", BAD, PLACES[kind])


def _remove_split(folder: Path, split: str) -> None:
    for path in sorted((folder / split).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / split).rmdir()


_LAYOUTS: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "no training folder": (lambda folder: _remove_split(folder, "train"), "train"),
    "no validation folder": (lambda folder: _remove_split(folder, "val"), "val"),
    "a training file": (lambda f: (_remove_split(f, "train"), (f / "train").write_text("x")), "train"),
    "no images": (lambda f: [p.unlink() for p in (f / "train").rglob("*.png")], "train"),
    "a class of no images": (lambda f: (f / "train" / "cow").mkdir(), "cow"),
    "another class in validation": (lambda f: (f / "val" / "cow").mkdir(), "cow"),
    "a class that validation lacks": (lambda f: [p.unlink() for p in (f / "val" / "cat").iterdir()], "cat"),
    "a class in a pipe": (lambda f: os.mkfifo(f / "train" / "cat" / "x.png"), "x.png"),
}


@st.composite
def _layout_cases(draw: st.DrawFn) -> Case:
    what = draw(st.sampled_from(list(_LAYOUTS)))
    return _layout_case(what)


def _layout_case(what: str) -> Case:
    change, offender = _LAYOUTS[what]

    def make(folder: Path) -> None:
        _write_good(folder)
        change(folder)

    return Case(what, (offender,), make, _use)


def _one_class(folder: Path) -> None:
    _write_good(folder)
    for split in ("train", "val"):
        (folder / split / "dog" / "0.png").unlink()
        (folder / split / "dog").rmdir()


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""
    name = b"train/cat/\xff\xfe.png"

    def write_odd(folder: Path) -> None:
        _write_good(folder)
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(b"no image")

    return [
        *(_layout_case(what) for what in _LAYOUTS),
        *(_case(f"is {kind}", BAD, PLACES[kind]) for kind in _NO_FILES),
        Case("one class", ("train",), _one_class, _use),
        Case("a name that is no UTF-8", (".png",), write_odd, _use),
        _case("truncated", "train/cat/bad.jpeg", lambda path: path.write_bytes(_encoded("jpeg")[:2000])),
        _case("declares 2**31 - 1 squared", BAD, lambda path: path.write_bytes(_png(2**31 - 1, 2**31 - 1))),
        _case("declares 40,000 squared", BAD, lambda path: path.write_bytes(_png(40_000, 40_000))),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(_byte_cases(), _truncated_cases(), _size_cases(), _place_cases(), _layout_cases())
