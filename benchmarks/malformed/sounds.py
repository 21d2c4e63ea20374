"""Recordings, with classes or with what is said in them, of which something is wrong."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import transformers as tf
from hypothesis import strategies as st

from asym_lightning.data import AudioClassificationDataModule, LoaderOptions, SpeechRecognitionDataModule
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import NO_FILES, Described, write_rows
from tests.audio_stand_ins import RATE, feature_extractor, letter_tokenizer, tone

ROWS, FILE, BAD = 4, "train.jsonl", "clips/0.wav"
_LOADER = LoaderOptions(batch_size=2)


@functools.cache
def _tokenizer() -> tf.PreTrainedTokenizerBase:
    with tempfile.TemporaryDirectory() as folder:
        return letter_tokenizer(Path(folder))


def _write(folder: Path) -> None:
    (folder / "clips").mkdir()
    for row in range(ROWS):
        soundfile.write(folder / f"clips/{row}.wav", tone(300.0, 0.1), RATE)
    rows = [{"file": f"clips/{row}.wav", "label": "xy"[row % 2], "text": "A B"} for row in range(ROWS)]
    write_rows(folder / FILE, rows)


def _use(data: Any) -> None:
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


def _classes(folder: Path, **options: Any) -> None:
    options = {"feature_extractor": feature_extractor(), "loader": _LOADER, **options}
    _use(AudioClassificationDataModule(**{"train": folder / FILE, **options}))


def _named_classes(folder: Path) -> None:
    _classes(folder, label_names=["x", "y"])


def _speech(folder: Path, **options: Any) -> None:
    options = {"feature_extractor": feature_extractor(), "tokenizer": _tokenizer(), "loader": _LOADER, **options}
    _use(SpeechRecognitionDataModule(folder / FILE, **options))


CLASSES = Described("sounds", FILE, _write, _classes)
NAMED = Described("sounds of named classes", FILE, _write, _named_classes)
SPEECH = Described("speech", FILE, _write, _speech)
_NO_LABELS = (None, ["x"], {"x": 1}, float("nan"), "")
_NO_TEXTS = (["A"], {"A": 1}, "what no letter is for")


def _samples(samples: np.ndarray, rate: int = RATE) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, rate, subtype="FLOAT")


_SOUNDS = {
    "has no samples": np.zeros(0, np.float32),
    "has one sample": np.zeros(1, np.float32),
    "is shorter than a step": np.zeros(RATE // 50, np.float32),
    "has two channels of one sample": np.zeros((1, 2), np.float32),
    "has NaN": np.full(RATE // 10, np.nan, np.float32),
    "has infinity": np.full(RATE // 10, np.inf, np.float32),
}
_KINDS = st.sampled_from([CLASSES, SPEECH])


def _folder_case(what: str, change: Callable[[Path], Any], *offenders: str) -> Case:
    def make(folder: Path) -> None:
        for name in ("x", "y"):
            (folder / "train" / name).mkdir(parents=True)
            soundfile.write(folder / "train" / name / "0.wav", tone(300.0, 0.1), RATE)
        change(folder / "train")

    return Case(f"a folder of sounds: {what}", offenders, make, lambda f: _classes(f, train=f / "train"))


def _empty(folder: Path) -> None:
    for path in folder.glob("*/*"):
        path.unlink()


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    return [
        *(CLASSES.replaced(BAD, what, _samples(samples)) for what, samples in _SOUNDS.items()),
        *(SPEECH.replaced(BAD, what, _samples(samples)) for what, samples in _SOUNDS.items()),
        Described("sounds", FILE, _write, functools.partial(_classes, resample=False)).replaced(
            BAD, "has another rate", _samples(tone(300.0, 0.1, 8000), 8000)
        ),
        Described("speech", FILE, _write, functools.partial(_speech, max_seconds=0.05)).case(
            "all clips are too long", lambda folder: None
        ),
        SPEECH.case("no transcript at all", lambda f: write_rows(f / FILE, [{"file": BAD, "text": None}] * 2)),
        CLASSES.case("one class", lambda f: write_rows(f / FILE, [{"file": BAD, "label": "x"}] * 2)),
        CLASSES.case("no label at all", lambda f: write_rows(f / FILE, [{"file": BAD, "label": None}] * 2)),
        NAMED.cell(1, "label", "X x"),
        NAMED.cell(1, "label", 2),
        _folder_case("no sound", _empty, "train"),
        _folder_case("a text called wav", lambda f: (f / "x" / "1.wav").write_text("no sound"), "1.wav"),
        _folder_case("sound beside the classes", lambda f: _samples(tone(300.0, 0.1))(f / "1.wav"), "1.wav", "label"),
        _folder_case("one class", lambda f: [p.unlink() for p in (f / "y").iterdir()], "train"),
    ]  # fmt: skip


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        CLASSES.cells({"file": NO_FILES, "label": _NO_LABELS[1:3]}, ROWS),
        NAMED.cells({"file": NO_FILES, "label": (*_NO_LABELS, "z", 7, True)}, ROWS),
        SPEECH.cells({"file": NO_FILES, "text": _NO_TEXTS}, ROWS),
        CLASSES.columns(["file", "label"]),
        SPEECH.columns(["file", "text"]),
        _KINDS.flatmap(lambda kind: kind.bytes_in(BAD)),
        _KINDS.flatmap(lambda kind: kind.cut(BAD, st.integers(0, 1))),
        _KINDS.flatmap(lambda kind: kind.places(BAD)),
        _KINDS.flatmap(lambda kind: kind.places(FILE)),
    )
