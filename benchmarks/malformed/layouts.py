"""Texts in layouts that are no tables, CoNLL's words by line and SQuAD's articles, of which something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from asym_lightning.data import QuestionAnsweringDataModule, TokenClassificationDataModule
from benchmarks.malformed.case import Case
from benchmarks.malformed.described import Described
from benchmarks.malformed.tables import common, use

CONLL, SQUAD = "train.conll", "train.json"
_WORDS = "a O\nb B-x\nc I-x\n\na B-x\nb O\n\n"


def _write_articles(folder: Path) -> None:
    asked = {"id": "q", "question": "a ?", "answers": [{"text": "b", "answer_start": 2}], "is_impossible": False}
    paragraphs = [{"context": "a b c d", "qas": [{**asked, "id": f"{n}"}]} for n in range(2)]
    (folder / SQUAD).write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))


WORDS = Described(
    "words by line", CONLL, lambda folder: (folder / CONLL).write_text(_WORDS),
    lambda folder: use(TokenClassificationDataModule(train=folder / CONLL, **common())),
)  # fmt: skip
ARTICLES = Described(
    "articles", SQUAD, _write_articles,
    lambda folder: use(QuestionAnsweringDataModule(train=folder / SQUAD, stride=2, **common())),
)  # fmt: skip


def _lines(what: str, text: bytes) -> Case:
    return WORDS.case(what, lambda folder: (folder / CONLL).write_bytes(text))


@st.composite
def _line_cases(draw: st.DrawFn) -> Case:
    place = draw(st.sampled_from([0, 1, 2, 5]))
    bad = draw(st.sampled_from([b"word", b"\xff\xfe O", b" O", b"\xe9 O"]))
    lines = _WORDS.encode().split(b"\n")
    return _lines(f"line {place + 1} is {bad!r}", b"\n".join([*lines[:place], bad, *lines[place:]]))


def _asked(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda content: change(content["data"][0]["paragraphs"][1]["qas"][0])


_CHANGES: dict[str, Callable[[Any], Any]] = {
    "no data": lambda content: content.pop("data"),
    "data is a number": lambda content: content.update(data=3),
    "data is empty": lambda content: content.update(data=[]),
    "no paragraphs": lambda content: content["data"][0].pop("paragraphs"),
    "paragraphs of numbers": lambda content: content["data"][0].update(paragraphs=[3]),
    "no context": lambda content: content["data"][0]["paragraphs"][1].pop("context"),
    "a context of numbers": lambda content: content["data"][0]["paragraphs"][1].update(context=[3]),
    "questions are null": lambda content: content["data"][0]["paragraphs"][1].update(qas=None),
    "a question without a text": _asked(lambda asked: asked.pop("question")),
    "an empty question": _asked(lambda asked: asked.update(question=" ")),
    "answers are a text": _asked(lambda asked: asked.update(answers="b")),
    "an answer without a place": _asked(lambda asked: asked["answers"][0].pop("answer_start")),
    "an answer elsewhere": _asked(lambda asked: asked["answers"][0].update(answer_start=4)),
    "an answer before the context": _asked(lambda asked: asked["answers"][0].update(answer_start=-5)),
    "an answer at a fraction": _asked(lambda asked: asked["answers"][0].update(answer_start=2.5)),
    "an empty answer": _asked(lambda asked: asked["answers"][0].update(text="")),
    "answers are missing": _asked(lambda asked: asked.pop("answers")),
}


def _article_case(what: str) -> Case:
    def change(folder: Path) -> None:
        content = json.loads((folder / SQUAD).read_text())
        _CHANGES[what](content)
        (folder / SQUAD).write_text(json.dumps(content))

    return ARTICLES.case(what, change)


def named_cases() -> list[Case]:
    """Cases that are not left to chance."""
    return [
        _lines("no words", b"\n\n"),
        _lines("nothing", b""),
        _lines("one tag", b"a O\nb O\n"),
        _lines("words without tags", b"a\nb\n"),
        *map(_article_case, _CHANGES),
    ]


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _line_cases(), WORDS.places(CONLL), ARTICLES.places(SQUAD), ARTICLES.bytes_in(SQUAD),
        ARTICLES.cut(SQUAD, st.integers(0, 97)),
    )  # fmt: skip
