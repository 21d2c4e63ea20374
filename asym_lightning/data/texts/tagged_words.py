"""Words with a tag each, from lists of words or from texts with marked spans."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from asym_lightning.core.messages import shown
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.texts.conll_file import LINES

OUTSIDE = "O"
# Writing without spaces goes by single characters.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|(?:(?![{_IDEOGRAPHS}])\w)+|[^\w\s]")
_PLACE = re.compile(r"([BIMELSU])-(.+)")


@dataclass(frozen=True)
class TaggedColumns:
    """Which columns hold what.

    Args:
        words: Lists of words.
        tags: Lists of tags, one a word.
        text: Texts, where there are no lists of words.
        spans: Lists of spans of these texts: `start`, `end` and `label` each, in characters.
    """

    words: str
    tags: str
    text: str
    spans: str


class TaggedText(NamedTuple):
    """A text in words.

    Attributes:
        words: The words.
        tags: Their tags; None where they are not known.
        edges: First character of each word and the one after its last; None where there is no text but the words.
        num_widened: Number of spans that began or ended within a word, and now have all of it.
    """

    words: Sequence[str]
    tags: Sequence[str] | None
    edges: Sequence[tuple[int, int]] | None = None
    num_widened: int = 0


def tagged_text(table: TextTable, row: int, columns: TaggedColumns) -> TaggedText:
    """Return a row of a table in words.

    Raises:
        ValueError: If it is neither words nor a text, or its tags or spans do not suit them; the message says where.
    """
    record = {name: values[row] for name, values in table.columns.items()}
    try:
        if record.get(columns.words) is not None:
            return _of_words(record[columns.words], record.get(columns.tags), columns)
        if isinstance(record.get(columns.text), str):
            return text_in_words(record[columns.text], record.get(columns.spans))
        raise ValueError(f"there are neither words under {columns.words!r} nor a text under {columns.text!r}.")
    except ValueError as error:
        raise ValueError(f"{table.where(row)}: {error}") from None


def where_word(table: TextTable, row: int, number: int) -> str:
    """Return the place of a word, for a message: its own line where it has one."""
    lines = table.columns.get(LINES)
    return f"{table.where(row)}, word {number + 1}" if lines is None else f"{table.source}, line {lines[row][number]}"


def _of_words(words: Any, tags: Any, columns: TaggedColumns) -> TaggedText:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{columns.words!r} must be a list of words, not {shown(words)}.")
    if not words:
        raise ValueError(f"{columns.words!r} is empty.")
    if tags is None:
        return TaggedText(words, None)
    if not isinstance(tags, list) or not all(isinstance(tag, (str, int)) for tag in tags):
        raise ValueError(f"{columns.tags!r} must be a list of tags, not {shown(tags)}.")
    if len(tags) != len(words):
        raise ValueError(f"there are {len(tags)} tags for {len(words)} words.")
    return TaggedText(words, [str(tag) for tag in tags])


def text_in_words(text: str, spans: Any = None) -> TaggedText:
    """Cut a text into words and marks, and give those of each span the tags `B-` and `I-` and its label.

    Args:
        text: The text.
        spans: Objects with `start`, `end` and `label`, or lists of the three; None where they are not known.

    Raises:
        ValueError: If a span is none, lies outside of the text, holds no word, or overlaps another.

    Example:
        >>> text_in_words("Ann saw New York.", [{"start": 8, "end": 16, "label": "LOC"}]).tags
        ['O', 'O', 'B-LOC', 'I-LOC', 'O']
    """
    edges = [match.span() for match in _WORD.finditer(text)]
    words = [text[start:end] for start, end in edges]
    if not words:
        raise ValueError("the text holds no word.")
    if spans is None:
        return TaggedText(words, None, edges)
    if not isinstance(spans, list):
        raise ValueError(f"the spans must be a list, not {shown(spans)}.")
    tags, num_widened = [OUTSIDE] * len(words), 0
    for start, end, label in map(_span, spans):
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the span {start} to {end} ({label}) does not lie within the {len(text)} characters.")
        within = [number for number, (first, last) in enumerate(edges) if first < end and last > start]
        if not within:
            raise ValueError(f"the span {start} to {end} ({label}) holds no word.")
        if any(tags[number] != OUTSIDE for number in within):
            raise ValueError(f"the span {start} to {end} ({label}) overlaps another.")
        num_widened += edges[within[0]][0] < start or edges[within[-1]][1] > end
        for number in within:
            tags[number] = f"{'B' if number == within[0] else 'I'}-{label}"
    return TaggedText(words, tags, edges, num_widened)


def _span(given: Any) -> tuple[int, int, str]:
    fields = [given.get(name) for name in ("start", "end", "label")] if isinstance(given, Mapping) else given
    if not isinstance(fields, list) or [type(field) for field in fields] != [int, int, str] or not fields[2]:
        raise ValueError(f"a span must have `start`, `end` and `label`, not {shown(given)}.")
    return fields[0], fields[1], fields[2]


def tag_set(tags: Collection[str]) -> list[str]:
    """Return the tags of data, what is outside first; of each type of entity all places that any type has.

    >>> tag_set(["O", "B-PER", "B-LOC"])
    ['O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER']
    """
    found = [_PLACE.fullmatch(tag) for tag in tags]
    places, types = ({match[group] for match in found if match} for group in (1, 2))
    places |= {"I"} if "B" in places else set()
    others = sorted((tag for tag, match in zip(tags, found, strict=True) if not match), key=lambda t: (t != OUTSIDE, t))
    return [*others, *(f"{place}-{kind}" for kind in sorted(types) for place in sorted(places))]
