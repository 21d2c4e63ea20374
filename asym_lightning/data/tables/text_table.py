"""Tables of text from csv, tsv, jsonl and parquet files, each row with the place it came from."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.utilities import rank_zero_warn

from asym_lightning.core.extras import extra_named
from asym_lightning.core.messages import did_you_mean, first_line

T = TypeVar("T")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class TextTable:
    """Columns of equal length, and where each row came from.

    Args:
        source: What to call the table in messages: a file, or a data set of the hub.
        columns: Values by column name.
        lines: Number of the file's line on which each row ends; None where rows have no lines (parquet, hub).
        first_row: Number of the first row, in a part of a larger table.

    Example:
        >>> table = TextTable("a.tsv", {"sentence": ["Hello.", "Bye."]}, lines=[2, 3])
        >>> len(table), table.where(1)
        (2, 'a.tsv, line 3')
    """

    source: str
    columns: dict[str, list[Any]]
    lines: Sequence[int] | None = None
    first_row: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str) -> list[Any]:
        """Return a column.

        Raises:
            ValueError: If there is none of this name; the message names the nearest, or those that there are.
        """
        if name not in self.columns:
            raise ValueError(f"{self.source} has no column {name!r}{did_you_mean(name, self.columns)}")
        return self.columns[name]

    def read_cells(self, name: str, read: Callable[[Any], T]) -> list[T]:
        """Return what a function makes of each cell of a column.

        Args:
            name: Name of the column.
            read: What reads a cell.

        Raises:
            ValueError: If there is no such column, or `read` raises one; the message then begins with the place.

        Example:
            >>> TextTable("a.csv", {"age": ["1", "x"]}, lines=[2, 3]).read_cells("age", int)
            Traceback (most recent call last):
            ValueError: a.csv, line 3: invalid literal for int() with base 10: 'x'
        """
        cells = []
        for row, cell in enumerate(self.column(name)):
            try:
                cells.append(read(cell))
            except ValueError as error:
                raise ValueError(f"{self.where(row)}: {error}") from None
        return cells

    def check_not_empty(self, use: str) -> None:
        """Check that there is a row.

        Args:
            use: What the rows are for, such as `train`.

        Raises:
            ValueError: If there is none.
        """
        if not len(self):
            raise ValueError(f"{self.source} is empty: there is nothing to use as {use} data.")

    def where(self, row: int) -> str:
        """Return the place of a row, for a message."""
        place = f"line {self.lines[row]}" if self.lines else f"row {self.first_row + row}"
        return f"{self.source}, {place}"

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Cut the table into parts of as many rows, the last of fewer.

        >>> [part.where(0) for part in TextTable("a.parquet", {"text": ["a", "b", "c"]}).parts(2)]
        ['a.parquet, row 0', 'a.parquet, row 2']
        """
        for start in range(0, max(len(self), 1), num_rows):
            part = slice(start, start + num_rows)
            columns = {name: values[part] for name, values in self.columns.items()}
            yield TextTable(self.source, columns, self.lines[part] if self.lines else None, self.first_row + start)

    def chosen(self, rows: Sequence[int], first_row: int = 0) -> TextTable:
        """Return some of the rows, numbered anew.

        >>> TextTable("a.tsv", {"text": ["a", "b", "c"]}, lines=[2, 3, 4]).chosen([0, 2]).where(1)
        'a.tsv, line 4'
        """
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return TextTable(self.source, columns, [self.lines[row] for row in rows] if self.lines else None, first_row)


def is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: null, or the NaN that stands for it in some files.

    >>> is_missing(None), is_missing(math.nan), is_missing(""), is_missing(0)
    (True, True, False, False)
    """
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def is_cell(value: Any) -> bool:
    """Whether a value is a text or can be written as one, as lists, mappings and bytes can't."""
    return isinstance(value, (str, int, float, date, time, Decimal))


def read_text_table(path: str | Path, header: Sequence[str] | None = None, skip_bad_rows: bool = False) -> TextTable:
    """Read a file into a table; its suffix says how.

    - `.tsv`: one row a line, cells apart by tabs, quotes are a part of the text, as in the files of GLUE.
    - `.csv`: commas, with quotes around cells that hold commas, quotes or newlines.
    - `.jsonl`: one JSON object a line.
    - `.parquet`.

    Args:
        path: The file.
        header: Names of the columns of a tsv or csv file without a header line; None reads them from the first line.
        skip_bad_rows: Leave out rows that cannot be read, with one warning that counts them, instead of an error.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the suffix is unknown, or a row cannot be read; the message names file and line.
    """
    (table,) = text_table_parts(path, header, skip_bad_rows, num_rows=None)
    return table


def text_table_parts(
    path: str | Path, header: Sequence[str] | None = None, skip_bad_rows: bool = False, *, num_rows: int | None
) -> Iterator[TextTable]:
    """Read a file as `read_text_table` does, in parts, one at a time.

    Args:
        path: The file.
        header: See `read_text_table`.
        skip_bad_rows: See `read_text_table`.
        num_rows: Rows of a part; None puts all into one. An empty file is one part without rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    if path.suffix == ".parquet":
        yield from _parquet_parts(path, num_rows)
        return
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{str(path)!r} is none of {', '.join(SUFFIXES)}.")
    reader = _json_rows if path.suffix == ".jsonl" else _delimited_rows
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    num_skipped = first_row = 0
    for line, names, values in reader(path, header):
        problem = _problem(names, values, columns)
        if problem and not skip_bad_rows:
            raise ValueError(f"{path}, line {line}: {problem}; `skip_bad_rows: true` leaves such rows out.")
        if problem or values is None:
            num_skipped += 1
            continue
        if len(lines) == num_rows:
            yield TextTable(str(path), columns, lines, first_row)
            columns, lines, first_row = {name: [] for name in columns}, [], first_row + len(lines)
        columns = columns or {name: [] for name in names}
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
        lines.append(line)
    if num_skipped:
        rank_zero_warn(f"{path}: {num_skipped} rows that cannot be read were left out.")
    yield TextTable(str(path), columns, lines, first_row)


Row = tuple[int, Sequence[str], Sequence[Any] | None]
"""Line, column names, and values, or None for the values if the line is not a row at all."""


def _problem(names: Sequence[str], values: Sequence[Any] | None, columns: dict[str, list[Any]]) -> str | None:
    if values is None:
        return "this is not a JSON object" if not names else f"this cannot be read ({names[0]})"
    if len(values) != len(names):
        return f"there are {len(values)} cells where {len(names)} are expected ({', '.join(names)})"
    if columns and set(names) != set(columns):
        return f"the keys are {', '.join(names)}, but {', '.join(columns)} in the rows before"
    return None


def _delimited_rows(path: Path, header: Sequence[str] | None) -> Iterator[Row]:
    rows = _csv_cells(path) if path.suffix == ".csv" else _tsv_cells(path)
    for line, cells in rows:
        if isinstance(cells, UnicodeDecodeError):
            yield line, (not_utf8(cells),), None
        elif header is None:
            header = cells
        elif cells:
            yield line, header, cells


def _tsv_cells(path: Path) -> Iterator[tuple[int, list[str] | UnicodeDecodeError]]:
    for line, text in text_lines(path):
        if isinstance(text, str):
            text = text.rstrip("\r\n")
            yield line, text.split("\t") if text else []
        else:
            yield line, text


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(_texts(path), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:  # the reader cannot tell where the next row starts
        raise ValueError(f"{path}, line {reader.line_num}: this cannot be read as csv ({error}).") from error


def _texts(path: Path) -> Iterator[str]:
    for line, text in text_lines(path):
        if not isinstance(text, str):
            raise ValueError(f"{path}, line {line}: this cannot be read as csv ({not_utf8(text)}).")
        yield text


def _json_rows(path: Path, header: Sequence[str] | None) -> Iterator[Row]:
    for line, text in text_lines(path):
        if not isinstance(text, str):
            yield line, (not_utf8(text),), None
            continue
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            yield line, (f"JSON error, {error.msg} at column {error.colno}",), None
            continue
        except RecursionError:
            yield line, ("JSON error, nested too deep",), None
            continue
        if isinstance(record, dict):
            yield line, tuple(record), tuple(record.values())
        else:
            yield line, (), None


def text_lines(path: Path) -> Iterator[tuple[int, str | UnicodeDecodeError]]:
    """Lines by number, or what is wrong with them; a line feed alone ends them: some sentences hold other breaks."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield number, error


def not_utf8(error: UnicodeDecodeError) -> str:
    """Say which byte of a line is no UTF-8."""
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"


def _parquet_parts(path: Path, num_rows: int | None) -> Iterator[TextTable]:
    with extra_named(str(path)):
        import pyarrow
        import pyarrow.parquet

    try:
        if num_rows is None:
            yield TextTable(str(path), pyarrow.parquet.read_table(path).to_pydict())
            return
        file, first_row = pyarrow.parquet.ParquetFile(path), 0
        for batch in file.iter_batches(num_rows):
            yield TextTable(str(path), batch.to_pydict(), first_row=first_row)
            first_row += len(batch)
        if not first_row:
            yield TextTable(str(path), {name: [] for name in file.schema_arrow.names})
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet ({first_line(error)[:100]}).") from error
