"""One :class:`Row` an arm and cell, kept as csv; ratios between arms are taken round by round."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arms import FLOOR
from benchmarks.cells import Cell


@dataclass
class Row:
    """What was measured of one arm in one cell. All sizes are in bytes, all times in seconds.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: As Lightning names it.
        threads: Cores used.
        arm: Name of the arm.
        dropout: Its dropout on the adapter's input.
        step_seconds: Every timed step, in the order of the rounds; in one round all arms take one step.
        trainable: Trained numbers.
        saved_bytes: Kept for the backward pass.
        peak_bytes: The GPU allocator's peak over the frozen weights: adapters, optimizer state and step.
        kernels: Kernels of a step on a GPU, operators on a CPU.
        layers: Adapted layers.
        optimizer_bytes: Optimizer state.
        file_bytes: The adapter's file; 0 where there is none.
        compact_bytes: The same without a frozen A that its seed gives back.
        inject_seconds: Putting the adapters in.
        first_step_seconds: The first step, compilation included.
        skipped: Why the arm was not run.
        machine: In words.
        processes: That train together.
        flops: Products and sums of a step of a perfect program, forward and backward.
        needed_bytes: What a perfect program keeps for the backward pass.
        matmul_speed: Of the machine, in such operations a second, as large products have it in the same rounds.
    """

    model: str
    depth: int
    width: int | None
    batch: int
    length: int
    targets: str
    rank: int
    mode: str
    device: str
    precision: str
    threads: int
    arm: str
    dropout: float = 0.0
    step_seconds: tuple[float, ...] = ()
    trainable: int | None = None
    saved_bytes: int | None = None
    peak_bytes: int | None = None
    optimizer_bytes: int | None = None
    file_bytes: int | None = None
    compact_bytes: int | None = None
    inject_seconds: float | None = None
    first_step_seconds: float | None = None
    skipped: str = ""
    machine: str = ""
    kernels: int | None = None
    layers: int | None = None
    processes: int = 1
    flops: int | None = None
    needed_bytes: int | None = None
    matmul_speed: float | None = None

    @property
    def cell(self) -> Cell:
        """The cell that this row belongs to."""
        return Cell(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Cell)})

    @property
    def group(self) -> tuple[Any, ...]:
        """What rows that are compared with each other have in common."""
        return (self.cell, self.device, self.precision, self.threads)

    @property
    def perfect_seconds(self) -> float | None:
        """What a step would take that does nothing but its products, as fast as the machine does large ones."""
        return self.flops / self.matmul_speed if self.flops and self.matmul_speed else None


@dataclass(frozen=True)
class Ratio:
    """A ratio of step times, taken in every round.

    Attributes:
        median: Of the rounds' ratios.
        low: Their lower quartile.
        high: Their upper quartile.
        fastest: Of the two fastest steps, which other work on the machine disturbs least.
    """

    median: float
    low: float
    high: float
    fastest: float

    @classmethod
    def of(cls, row: Row, other: Row) -> Ratio:
        """Of ``row``'s steps to those that ``other`` took in the same rounds.

        >>> a, b = (Row("m", 1, None, 1, 1, "qkv", 1, "eager", "cpu", "32", 1, name) for name in "ab")
        >>> a.step_seconds, b.step_seconds = (2.0, 3.0, 9.0), (2.0, 2.0, 3.0)
        >>> Ratio.of(a, b)
        Ratio(median=1.5, low=1.25, high=2.25, fastest=1.0)
        """
        ratios = [a / b for a, b in zip(row.step_seconds, other.step_seconds, strict=True)]
        fastest = min(row.step_seconds) / min(other.step_seconds)
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0], fastest)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high, fastest)


def group_rows(rows: Iterable[Row]) -> list[dict[str, Row]]:
    """Rows of one cell, device and precision together, by arm, in the order in which they come."""
    groups: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row.group, {})[row.arm] = row
    return list(groups.values())


def ratio_to(row: Row, arms: dict[str, Row], name: str = FLOOR) -> Ratio | None:
    """The ratio to another arm of the same cell, ``None`` where either was not run."""
    other = arms.get(name)
    return Ratio.of(row, other) if other is not None and other.step_seconds and row.step_seconds else None


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows, with the steps in milliseconds and one cell of the file for all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in dataclasses.fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            steps = " ".join(f"{1000 * s:.3f}" for s in row.step_seconds)
            writer.writerow({**vars(row), "step_seconds": steps})


def read_csv(path: Path) -> list[Row]:
    """Read what :func:`write_csv` wrote."""
    with path.open(newline="") as file:
        return [_parse(entry) for entry in csv.DictReader(file)]


def holds_rows(path: Path) -> bool:
    """Whether a csv file is one of rows; other benchmarks have their own."""
    with path.open() as file:
        return "step_seconds" in file.readline().split(",")


def _parse(entry: dict[str, str]) -> Row:
    values: dict[str, Any] = {}
    for f in dataclasses.fields(Row):
        if f.name not in entry:
            continue  # of a file that was written before there was such a field
        text = entry[f.name]
        if f.name == "step_seconds":
            values[f.name] = tuple(round(float(ms) / 1000, 6) for ms in text.split())
        elif "int" in str(f.type):
            values[f.name] = int(text) if text else None
        elif str(f.type).startswith("float"):
            values[f.name] = float(text) if text else None
        else:
            values[f.name] = text
    return Row(**values)
