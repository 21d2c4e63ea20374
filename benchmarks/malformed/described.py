"""Data of which a file tells about other files: tables of sounds and images, COCO's json. One thing of it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case

NO_FILES: Sequence[Any] = (
    None, "", " ", 7, True, ["a"], {}, {"path": None}, {"path": 3}, {"bytes": 3}, "gone", ".", "..", "a/\x00",
    "a" * 5000, "\udce9", float("nan"),
)  # fmt: skip
"""What is no name of a file that is there."""


@dataclass(frozen=True)
class Described:
    """A kind of data.

    Args:
        name: What it is.
        file: Name of the file that tells about the others.
        write: Writes data of which nothing is wrong to an empty folder.
        use: Reads them, as training does.
    """

    name: str
    file: str
    write: Callable[[Path], Any]
    use: Callable[[Path], Any]

    def case(self, what: str, change: Callable[[Path], Any], *offenders: str) -> Case:
        """A case of data that are changed, given their folder."""

        def make(folder: Path) -> None:
            self.write(folder)
            change(folder)

        return Case(f"{self.name}: {what}", offenders or (self.file,), make, self.use)

    def replaced(self, name: str, what: str, write: Callable[[Path], Any], *offenders: str) -> Case:
        """A case of another file in the place of one."""

        def change(folder: Path) -> None:
            (folder / name).unlink()
            write(folder / name)

        return self.case(f"{name} {what}", change, *(offenders or (Path(name).name,)))

    def cell(self, row: int, column: str, value: Any) -> Case:
        """A case of a wrong cell in a file of objects by line, which the message has to name by the line."""

        def change(folder: Path) -> None:
            rows = read_rows(folder / self.file)
            rows[row][column] = value
            write_rows(folder / self.file, rows)

        shown = f"{value!r:.40}"
        return self.case(f"{column} of row {row} is {shown}", change, f"{self.file}, line {row + 1}")

    def cells(self, wrong: Mapping[str, Sequence[Any]], num_rows: int) -> st.SearchStrategy[Case]:
        """Cases of a wrong cell, given what may not be in the cells of each column."""
        choices = [(column, value) for column, wrongs in wrong.items() for value in wrongs]
        return st.builds(
            lambda choice, row: self.cell(row, *choice), st.sampled_from(choices), st.integers(0, num_rows - 1)
        )

    def columns(self, names: Sequence[str]) -> st.SearchStrategy[Case]:
        """Cases of a column that is not there, or has another name."""

        def case(column: str, new: str | None) -> Case:
            def change(folder: Path) -> None:
                rows = read_rows(folder / self.file)
                for row in rows:
                    value = row.pop(column)
                    row |= {} if new is None else {new: value}
                write_rows(folder / self.file, rows)

            return self.case(f"{column} is {'missing' if new is None else f'called {new!r}'}", change)

        return st.builds(case, st.sampled_from(names), st.sampled_from([None, "", "File", "values", "\x1b[31m"]))

    def bytes_in(self, name: str) -> st.SearchStrategy[Case]:
        """Cases of a file that is of no format."""
        return st.builds(
            lambda data: self.replaced(name, f"is {data!r:.60}", lambda path: path.write_bytes(data)),
            values.bytes_of_nothing(),
        )

    def cut(self, name: str, shares: st.SearchStrategy[int]) -> st.SearchStrategy[Case]:
        """Cases of a file without its end, by the percentage that is left."""

        def case(share: int) -> Case:
            def change(folder: Path) -> None:
                data = (folder / name).read_bytes()
                (folder / name).write_bytes(data[: len(data) * share // 100])

            return self.case(f"{name} is cut to {share}%", change, Path(name).name)

        return st.builds(case, shares)

    def places(self, name: str) -> st.SearchStrategy[Case]:
        """Cases of something else in the place of a file."""
        return st.sampled_from(list(PLACES)).map(lambda kind: self.replaced(name, f"is {kind}", PLACES[kind]))


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read a file of objects by line."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a file of objects by line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
