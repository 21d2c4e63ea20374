"""Rows to answer, from a file or from standard input, with the line that each is from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asym_lightning.core.messages import check_choice, not_one_of, shown
from asym_lightning.data.language.prompts import asked_by
from asym_lightning.data.tables.record_file import read_records
from asym_lightning.data.tables.text_table import read_text_table

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    """A row to answer.

    Args:
        where: Its place, for a message; nothing for a prompt of the command line.
        record: All its fields.
        adapter: Name of the adapter that it is to be answered with; None for that of the command line.
    """

    where: str
    record: Mapping[str, Any]
    adapter: str | None = None

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name the row in a `ValueError` of the block."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}" if self.where else str(error)) from error


def read_rows(source: str, field: str, adapters: Sequence[str]) -> list[Row]:
    """Read rows, and check that each asks something.

    Args:
        source: A file with a row a line (jsonl, csv, tsv) or an array of rows (json); `-` is jsonl in standard input.
        field: Where answers are going to be, which no row may have yet.
        adapters: Names of the adapters that there are.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It can't be read, is empty, or a row asks nothing or has the field; the message names the line.
    """
    rows = [
        Row(where, record, record.get("adapter") or None)
        for where, record in (_of_input() if source == "-" else _of_file(Path(source)))
    ]
    if not rows:
        raise ValueError(f"{'standard input' if source == '-' else source} has no rows.")
    for row in rows:
        with row.named():
            asked_by(row.record)
            if row.record.get(field) is not None:
                raise ValueError(f"there is a `{field}` already: name another by `--field`.")
            if not isinstance(row.adapter, str | None):
                raise ValueError(f"`adapter` is a name, not {shown(row.adapter)}.")
            if row.adapter is not None:
                check_choice("adapter", row.adapter, adapters)
    return rows


def _of_input() -> Iterator[tuple[str, dict[str, Any]]]:
    for line, record in read_records("standard input", sys.stdin.buffer.read()):
        yield f"standard input, line {line}", record


def _of_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if path.suffix not in SUFFIXES:
        raise ValueError(not_one_of("the suffix of `--prompts`", path.suffix, SUFFIXES))
    if path.suffix in (".csv", ".tsv"):
        table = read_text_table(path)
        for row in range(len(table)):
            yield table.where(row), {name: values[row] for name, values in table.columns.items()}
        return
    for line, record in read_records(str(path), path.read_bytes(), is_array=path.suffix == ".json"):
        yield f"{path}, line {line}", record
