"""Files of JSON records, one array or one record a line, read with the line that each record starts on."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asym_lightning.data.tables.text_source import LocalFile, TextSource, in_parts
from asym_lightning.data.tables.text_table import TextTable

_SPACE = re.compile(r"[\s,]*")
Record = tuple[int, dict[str, Any]]
"""Line, and what is on it."""


@dataclass(frozen=True)
class RecordFile:
    """A `.json` file with an array of objects, as Alpaca's, or a `.jsonl` file with an object a line.

    Records may differ in their keys: a column holds None where a record lacks its key. csv, tsv and parquet
    files are read as `LocalFile` reads them.
    """

    path: Path

    def fingerprint(self) -> str:
        """Hash the bytes.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        return LocalFile(self.path).fingerprint()

    def read(self) -> TextTable:
        """Read the file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If something in it is not a JSON object, or no UTF-8; the message says on which line.
        """
        if not self.path.is_file():  # a pipe or a device gives no end of text
            raise FileNotFoundError(f"there is no file {str(self.path)!r}.")
        if self.path.suffix not in (".json", ".jsonl"):
            return LocalFile(self.path).read()
        records = list(self._records())
        return self._table(records, _keys(records))

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Read the file part by part, after a look at the keys of all records; of an array the text is in memory."""
        if not self.path.is_file() or self.path.suffix not in (".json", ".jsonl"):
            yield from LocalFile(self.path).parts(num_rows)
            return
        keys, records, first_row = _keys(self._records()), self._records(), 0
        while (part := list(islice(records, num_rows))) or not first_row:
            yield self._table(part, keys, first_row)
            first_row += len(part)
            if not part:
                return

    def _records(self) -> Iterator[Record]:
        source = str(self.path)
        if self.path.suffix == ".json":
            yield from _checked(source, _array_items(source, _text(source, self.path.read_bytes())))
        else:
            with self.path.open("rb") as file:
                yield from _checked(source, _lines(source, file))

    def _table(self, records: Sequence[Record], keys: Iterable[str], first_row: int = 0) -> TextTable:
        columns = {key: [record.get(key) for _, record in records] for key in keys}
        return TextTable(str(self.path), columns, [line for line, _ in records], first_row)


def _keys(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(key for _, record in records for key in record))


def read_records(source: str, data: bytes, *, is_array: bool = False) -> list[Record]:
    """Return JSON objects, each with the number of its line.

    Args:
        source: What to call the data in messages.
        data: An object a line, or an array of objects, in UTF-8.
        is_array: Which of the two.

    Raises:
        ValueError: If something in it is not a JSON object, or no UTF-8; the message says on which line.

    Example:
        >>> read_records("a.jsonl", b'{"prompt": "Hi."}')
        [(1, {'prompt': 'Hi.'})]
    """
    items = _array_items(source, _text(source, data)) if is_array else _lines(source, io.BytesIO(data))
    return list(_checked(source, items))


@dataclass(frozen=True)
class RandomPart:
    """A random part of another source, for data sets that come without validation data.

    Args:
        source: The whole.
        count: Number of rows that are set apart.
        is_rest: Take the rows that are left, in their order, in place of those that are set apart.
        seed: Seed of the choice.
    """

    source: TextSource
    count: int
    is_rest: bool
    seed: int

    @property
    def path(self) -> Path | None:
        """The file or folder of the whole; None where it is on the hub."""
        return getattr(self.source, "path", None)

    def fingerprint(self) -> str:
        """Return that of the whole, and which part it is."""
        return f"{self.source.fingerprint()} {self.count} {self.is_rest} {self.seed}"

    def read(self) -> TextTable:
        """Read the whole and take the part.

        Raises:
            ValueError: If there would be nothing left.
        """
        table = self.source.read()
        return table.chosen(np.flatnonzero(self._is_chosen(len(table), table.source)).tolist())

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Count the rows of the whole, and take the part from each of its parts; none of them is empty.

        Raises:
            ValueError: If there would be nothing left.
        """
        total = first = taken = 0
        for part in in_parts(self.source, num_rows):
            total += len(part)
        is_chosen = self._is_chosen(total, part.source)
        for part in in_parts(self.source, num_rows):
            rows = np.flatnonzero(is_chosen[first : first + len(part)]).tolist()
            first += len(part)
            if rows:
                yield part.chosen(rows, taken)
                taken += len(rows)

    def _is_chosen(self, total: int, source: str) -> npt.NDArray[np.bool_]:
        if self.count >= total:
            raise ValueError(f"{source} has {total} rows: {self.count} cannot be set apart for validation.")
        is_apart = np.zeros(total, dtype=bool)
        is_apart[np.random.default_rng(self.seed).permutation(total)[: self.count]] = True
        return is_apart != self.is_rest


def with_validation(sources: Mapping[str, TextSource], num_val: int, seed: int) -> dict[str, TextSource]:
    """Return sources in which a part of the training data is for validation, unless there is validation data.

    Args:
        sources: Where each split comes from.
        num_val: Number of rows that are set apart; 0 leaves all as it is.
        seed: Seed of the choice.
    """
    if "train" not in sources or "val" in sources or not num_val:
        return dict(sources)
    whole = sources["train"]
    parts = {split: RandomPart(whole, num_val, split == "train", seed) for split in ("train", "val")}
    return {**sources, **parts}


def _text(source: str, data: bytes, first_line: int = 1) -> str:
    try:
        return data.decode("utf-8-sig" if first_line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + first_line
        raise ValueError(f"{source}, line {line}: this is no text in UTF-8 (byte {data[error.start]:#x}).") from error


def _checked(source: str, items: Iterable[tuple[int, Any]]) -> Iterator[Record]:
    for line, record in items:
        if not isinstance(record, dict):
            raise ValueError(f"{source}, line {line}: this is not a JSON object.")
        yield line, record


def _lines(source: str, file: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    for number, data in enumerate(file, start=1):
        line = _text(source, data, number).removesuffix("\n")
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{source}, line {number}: this is not JSON ({error.msg} at column {error.colno})."
                ) from error
            except RecursionError:
                raise ValueError(f"{source}, line {number}: this is nested too deep.") from None


def _array_items(source: str, text: str) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    line, counted, position = 1, 0, len(text) - len(text.lstrip())
    if text[position : position + 1] != "[":
        raise ValueError(f"{source} is not a JSON array of records; files with a record a line end in .jsonl.")
    position = _SPACE.match(text, position + 1).end()  # type: ignore[union-attr]
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            item, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ValueError(f"{source}, line {error.lineno}: this is not JSON ({error.msg}).") from error
        except RecursionError:
            raise ValueError(f"{source}, line {line}: this is nested too deep.") from None
        yield line, item
        position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
