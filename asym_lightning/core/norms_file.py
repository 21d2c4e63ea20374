"""The CSV file of a run that BNormMonitor writes and plots are made from."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asym_lightning.core.files import atomic_file

STATISTICS = (
    "B_frobenius",
    "B_spectral",
    "update_frobenius",
    "update_spectral",
    "stable_rank",
    "effective_rank",
    "relative_norm",
    "B_gradient",
    "change",
)
TOTAL = "total"  # in place of an adapter's name, over all of them
NormsRow = dict[str, Any]
_HEADER = ["step", "epoch", "adapter", *STATISTICS, "singular_values"]


class NormsFile:
    """Rows by step and adapter; if the disk fails, that is warned of once and the file is given up.

    Args:
        path: The file; its folder is made when the first row comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._has_failed = False

    def append(
        self,
        step: int,
        epoch: int,
        statistics: Mapping[str, Mapping[str, float]],
        spectra: Mapping[str, list[float]],
    ) -> None:
        """Add the rows of one log.

        Args:
            step: Optimizer steps done.
            epoch: Epochs done.
            statistics: By adapter, the statistics by name.
            spectra: By adapter, the singular values; an adapter may have none.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        for name, row in statistics.items():
            values = " ".join(f"{value:.9g}" for value in spectra.get(name, ()))
            writer.writerow([step, epoch, name, *(f"{row[s]:.9g}" for s in STATISTICS), values])
        self._try(self._append_text, text.getvalue())

    def drop_rows_after(self, step: int) -> None:
        """Take out what an interrupted run logged after the step that it is resumed from."""
        if self.path.exists():
            self._try(self._rewrite_until, step)

    def _append_text(self, rows: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        # In one write, so that a killed run leaves no half of a log behind.
        with open(self.path, "a", newline="") as file:
            file.write(",".join(_HEADER) + "\r\n" + rows if is_new else rows)

    def _rewrite_until(self, step: int) -> None:
        with open(self.path, newline="") as file:
            rows = list(csv.reader(file))
        kept = rows[:1] + [row for row in rows[1:] if _is_whole(row) and int(row[0]) <= step]
        if len(kept) < len(rows):
            with atomic_file(self.path) as staging, staging.open("w", newline="") as file:
                csv.writer(file).writerows(kept)

    def _try(self, write: Any, argument: Any) -> None:
        if self._has_failed:
            return
        try:
            write(argument)
        except OSError as error:
            self._has_failed = True
            warnings.warn(f"{self.path} can't be written ({error}); training goes on without it.", stacklevel=3)


def read_norms(path: str | Path) -> Iterator[NormsRow]:
    """The rows of such a file: `step`, `epoch`, `adapter`, the statistics, and `singular_values` as a list.

    A row that a full disk cut short is left out.

    Args:
        path: The CSV file; without one there are no rows.
    """
    if not Path(path).is_file():
        return
    with open(path, newline="") as file:
        for values in itertools.islice(filter(_is_whole, csv.reader(file)), 1, None):
            row = dict(zip(_HEADER, values, strict=True))
            yield {
                "step": int(row["step"]),
                "epoch": int(row["epoch"]),
                "adapter": row["adapter"],
                **{name: float(row[name]) for name in STATISTICS},
                "singular_values": [float(value) for value in row["singular_values"].split()],
            }


def _is_whole(row: list[str]) -> bool:
    return len(row) == len(_HEADER)
