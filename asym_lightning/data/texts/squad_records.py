"""Questions on a text, with the places of their answers: files in the layout of SQuAD, and flat records of the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from asym_lightning.core.messages import shown
from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.tables.text_table import TextTable


class Question(NamedTuple):
    """A question.

    Attributes:
        identifier: Its name.
        question: What is asked.
        context: The text that holds the answer.
        answers: Texts of the answers, each of which is right; empty where there is none, None where it is not known.
        starts: Their first characters in the context.
    """

    identifier: str
    question: str
    context: str
    answers: Sequence[str] | None
    starts: Sequence[int]


@dataclass(frozen=True)
class SquadFile:
    """A `.json` file as SQuAD has them, 1.1 or 2.0: articles, of paragraphs, of questions; other files are records."""

    path: Path

    def fingerprint(self) -> str:
        """Hash the bytes.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return RecordFile(self.path).fingerprint()

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Read records part by part; a file of articles is one object of JSON, and read whole."""
        return self.read().parts(num_rows) if self._holds_articles() else RecordFile(self.path).parts(num_rows)

    def read(self) -> TextTable:
        """Read the file into a table with a row a question.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no JSON, or of another layout.
        """
        if not self._holds_articles():
            return RecordFile(self.path).read()
        columns: dict[str, list[Any]] = {name: [] for name in ("id", "question", "context", "answers")}
        try:
            for article in json.loads(self.path.read_bytes())["data"]:
                for paragraph in article["paragraphs"]:
                    for asked in paragraph["qas"]:
                        columns["id"].append(asked.get("id"))
                        columns["question"].append(asked.get("question"))
                        columns["context"].append(paragraph.get("context"))
                        columns["answers"].append([] if asked.get("is_impossible") else asked.get("answers"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} is neither in the layout of SQuAD (`data`, lists of `paragraphs` of `context` and `qas`) "
                "nor an array of records."
            ) from error
        return TextTable(str(self.path), columns)

    def _holds_articles(self) -> bool:
        if self.path.suffix != ".json" or not self.path.is_file():
            return False
        return self.path.read_bytes().lstrip()[:1] != b"["


def question_of(table: TextTable, row: int) -> Question:
    """Return a row of a table as a question.

    Args:
        table: A table with `question`, `context`, and unless they are not known `answers`: `text` and `answer_start`,
            lists of both, or a list of objects with one of each.
        row: Number of the row.

    Raises:
        ValueError: If it is none, or an answer does not stand where it should; the message says where.
    """
    record = {name: values[row] for name, values in table.columns.items()}
    name = record.get("id")
    identifier = str(table.first_row + row if name is None else name)
    where = table.where(row) if name is None else f"{table.where(row)} ({shown(name)})"
    for field in ("question", "context"):
        if not isinstance(record.get(field), str) or not record[field].strip():
            raise ValueError(f"{where}: there is no text under `{field}`.")
    context: str = record["context"]
    try:
        answers = _answers(record.get("answers"))
        for text, start in answers or ():
            if context[start : start + len(text)] != text or start < 0:
                raise ValueError(f"the answer {shown(text)} does not stand at character {start} of the context.")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    texts = None if answers is None else [text for text, _ in answers]
    return Question(identifier, record["question"], context, texts, [start for _, start in answers or ()])


def _answers(given: Any) -> list[tuple[str, int]] | None:
    """Texts and places of answers.

    >>> _answers({"text": ["a"], "answer_start": [3]}), _answers([{"text": "a", "answer_start": 3}])
    ([('a', 3)], [('a', 3)])
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        columns = [given.get(name) for name in ("text", "answer_start")]
    elif isinstance(given, list) and all(isinstance(answer, Mapping) for answer in given):
        columns = [[answer.get(name) for answer in given] for name in ("text", "answer_start")]
    else:
        columns = [None, None]
    texts, starts = (column if isinstance(column, list) else None for column in columns)
    if texts is None or starts is None or len(texts) != len(starts):
        raise ValueError(f"`answers` must hold as many `text` as `answer_start`, not {shown(given)}.")
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text or type(start) is not int:
            raise ValueError(
                f"an answer must have a `text` and an `answer_start`, not {shown(text)} and {shown(start)}."
            )
    return list(zip(texts, starts, strict=True))
