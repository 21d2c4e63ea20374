"""Files of JSON records, one array or one record a line, read with the line that each record starts on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asym_lightning.data.tables.text_source import LocalFile, TextSource
from asym_lightning.data.tables.text_table import TextTable

_SPACE = re.compile(r"[\s,]*")


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
        source = str(self.path)
        records = read_records(source, self.path.read_bytes(), is_array=self.path.suffix == ".json")
        keys = dict.fromkeys(key for _, record in records for key in record)
        columns = {key: [record.get(key) for _, record in records] for key in keys}
        return TextTable(source, columns, [line for line, _ in records])


def read_records(source: str, data: bytes, *, is_array: bool = False) -> list[tuple[int, dict[str, Any]]]:
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
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{source}, line {line}: this is no text in UTF-8 (byte {data[error.start]:#x}).") from error
    records = list(_array_items(source, text) if is_array else _lines(source, text))
    for line, record in records:
        if not isinstance(record, dict):
            raise ValueError(f"{source}, line {line}: this is not a JSON object.")
    return records


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
        if self.count >= len(table):
            raise ValueError(f"{table.source} has {len(table)} rows: {self.count} cannot be set apart for validation.")
        is_apart = np.zeros(len(table), dtype=bool)
        is_apart[np.random.default_rng(self.seed).permutation(len(table))[: self.count]] = True
        rows = np.flatnonzero(is_apart != self.is_rest).tolist()
        columns = {name: [values[row] for row in rows] for name, values in table.columns.items()}
        return TextTable(table.source, columns, [table.lines[row] for row in rows] if table.lines else None)


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


def _lines(source: str, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
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
