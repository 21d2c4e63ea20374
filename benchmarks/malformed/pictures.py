"""Conversations on pictures of which something is wrong."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import transformers as tf
from hypothesis import strategies as st

from asym_lightning.data import LoaderOptions, VisionLanguageDataModule
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import NO_FILES, Described
from tests.picture_stand_ins import llava_processor, write_questions

ROWS, FILE, PICTURE = 3, "train.jsonl", "train/0.png"


@functools.cache
def _processor() -> tf.LlavaProcessor:
    return llava_processor()


def _use(folder: Path, **options: Any) -> None:
    data = VisionLanguageDataModule(folder / FILE, processor=_processor(), loader=LoaderOptions(2), **options)
    data.setup("fit")
    for _ in data.train_dataloader():
        pass


CHATS = Described("chats", FILE, lambda folder: write_questions(folder / FILE, ROWS), _use)
SHORT = Described("short chats", FILE, CHATS.write, functools.partial(_use, max_length=4))
_ASKED, _SAID = {"role": "user", "content": "what colour ?"}, {"role": "assistant", "content": "red"}


def _asked(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}, _SAID]


def _said(content: Any) -> list[Any]:
    return [_ASKED, {"role": "assistant", "content": content}]


_NO_MESSAGES = (
    None, "x", 3, {}, [], [3], [{}], [_ASKED], [_SAID], [_SAID, _ASKED], [{"role": "user"}, _SAID],
    [{"content": "what ?"}, _SAID], [{"role": 3, "content": "what ?"}, _SAID], [{"from": "human", "value": "?"}, _SAID],
    _asked(None), _asked(3), _asked([3]), _asked({"type": "image"}), _asked([{"type": "sound"}]),
    _asked([{"type": "text"}]),
    _asked("<image><image> what ?"), _asked([{"type": "image"}, {"type": "image"}]),
    _said(None), _said(""), _said("  "), _said([]), _said([{"type": "text", "text": ""}]), _said(3),
)  # fmt: skip


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    return [
        *(CHATS.cell(1, "messages", messages) for messages in _NO_MESSAGES),
        CHATS.cell(2, "images", ["train/0.png", "train/1.png", "train/gone.png"]),
        CHATS.case("no rows", lambda folder: (folder / FILE).write_text("")),
        SHORT.case("pictures are longer than all", lambda folder: None),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    no_pictures = (*NO_FILES, *([cell] for cell in NO_FILES), [])
    return st.one_of(
        CHATS.cells({"images": no_pictures, "messages": _NO_MESSAGES}, ROWS),
        CHATS.columns(["images", "messages"]),
        CHATS.bytes_in(PICTURE),
        CHATS.cut(PICTURE, st.integers(0, 70)),
        CHATS.places(PICTURE),
        CHATS.places(FILE),
    )
