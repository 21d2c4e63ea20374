"""Figures that belong to no arm, such as seconds until a command answers: one a row of a csv, and as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

HEADER = ("figure", "value", "machine")


def write_figures(figures: Mapping[str, float], path: Path, machine: str) -> None:
    """Write figures, whose names end with their unit, beside those of other names that the file has."""
    known = read_figures(path) if path.exists() else {}
    known |= {name: (value, machine) for name, value in figures.items()}
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows([name, f"{value:.4g}", on] for name, (value, on) in known.items())


def read_figures(path: Path) -> dict[str, tuple[float, str]]:
    """Read what :func:`write_figures` wrote: values and machines by name."""
    with path.open(newline="") as file:
        return {row["figure"]: (float(row["value"]), row["machine"]) for row in csv.DictReader(file)}


def holds_figures(path: Path) -> bool:
    """Whether a csv file is one of figures."""
    with path.open() as file:
        return file.readline().strip() == ",".join(HEADER)


def figures_table(path: Path) -> str:
    """The figures of a file as a Markdown table, under what they were measured on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_figures({"a step, ms": 12.5}, Path(folder, "a.csv"), "a computer")
    ...     print(figures_table(Path(folder, "a.csv")))
    Measured on: a computer.
    <BLANKLINE>
    | | |
    | --- | ---: |
    | a step, ms | 12.5 |
    """
    figures = read_figures(path)
    machines = [f"Measured on: {machine}." for machine in dict.fromkeys(machine for _, machine in figures.values())]
    lines = [f"| {name} | {value:,.4g} |" for name, (value, _) in figures.items()]
    return "\n".join([*machines, "", "| | |", "| --- | ---: |", *lines])
