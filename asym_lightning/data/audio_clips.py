"""Audio by row of a table: in files that the table names, or in bytes that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from asym_lightning.core.messages import first_line
from asym_lightning.data.file_cells import file_of, name_of
from asym_lightning.data.text_table import TextTable

Samples = npt.NDArray[np.float32]
SHORTEST = 0.025
"""Seconds that speech models take for one step; of less audio they make nothing."""


class AudioClips:
    """The clips of a table, opened when they are asked for and read as one channel at one rate.

    A cell is the path of a file, or an object with `bytes` and, maybe, `path`, as data sets of the hub have it. What is
    wrong with a clip is said with the table's file and line.

    Args:
        table: The table.
        column: Name of the column of audio.
        folder: What paths that are not absolute start from.
        rate: Samples a second that the model takes.
        resample: Whether clips of another rate are resampled, and not refused.

    Raises:
        ValueError: If there is no such column, a cell names no audio, or a clip can't be read or is of another rate.

    Attributes:
        seconds: Length of each clip.
    """

    def __init__(self, table: TextTable, column: str, folder: Path, rate: int, resample: bool) -> None:
        self.table = table
        self.cells = table.column(column)
        self.column = column
        self.folder = folder
        self.rate = rate
        self.resample = resample
        self.seconds = np.array([self._checked_length(row) for row in range(len(table))])

    def __len__(self) -> int:
        return len(self.seconds)

    def name(self, row: int) -> str:
        """Path of a clip as the table has it, or else the number of its row."""
        return name_of(self.cells[row]) or str(row)

    def read(self, row: int, longest: float | None = None) -> Samples:
        """Return the samples of a clip (length,) in [-1, 1], the mean of its channels.

        Args:
            row: Its row in the table.
            longest: Seconds that are read; None reads all.

        Raises:
            ValueError: If it can't be read any more.
        """
        with self._open(row) as file:
            count = -1 if longest is None else round(longest * file.samplerate)
            samples = self._decoded(row, lambda: file.read(count, dtype="float32", always_2d=True)).mean(axis=1)
            if not np.isfinite(samples).all():
                raise ValueError(f"{self._place(row)} holds NaN or infinity.")
            return samples if file.samplerate == self.rate else soxr.resample(samples, file.samplerate, self.rate)

    def _checked_length(self, row: int) -> float:
        with self._open(row) as file:
            rate, seconds = file.samplerate, file.frames / file.samplerate
        if rate != self.rate and not self.resample:
            raise ValueError(
                f"{self._place(row)} has {rate:,} samples a second, and the model takes {self.rate:,}: set "
                "`resample: true`, or resample the files."
            )
        if seconds < SHORTEST:
            raise ValueError(
                f"{self._place(row)} is {seconds * 1000:.0f} ms long, and models take {SHORTEST * 1000:.0f} ms for a "
                "step: leave it out."
            )
        return seconds

    def _open(self, row: int) -> soundfile.SoundFile:
        try:
            file = file_of(self.cells[row], self.folder)
        except ValueError as error:
            raise ValueError(f"{self.table.where(row)}, {self.column!r}: {error}") from None
        return self._decoded(row, lambda: soundfile.SoundFile(file))

    def _decoded(self, row: int, read: Any) -> Any:
        try:
            return read()
        except (soundfile.SoundFileError, OSError) as error:
            raise ValueError(f"{self._place(row)} cannot be read as audio ({first_line(error)[:100]}).") from error

    def _place(self, row: int) -> str:
        return f"{self.table.where(row)}: {self.name(row)}"
