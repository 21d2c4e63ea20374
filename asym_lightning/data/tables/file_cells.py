"""Cells of tables that name a file, or hold what is in one, as data sets of the hub do with sound and pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asym_lightning.core.messages import shown
from asym_lightning.data.tables.text_table import is_missing


def file_of(cell: Any, folder: Path) -> Path | io.BytesIO:
    """Return the file that a cell names or holds.

    Args:
        cell: A path, or an object with `bytes` and, maybe, `path`.
        folder: What paths that are not absolute start from.

    Raises:
        ValueError: If it is neither, or there is no such file.
    """
    path = cell
    if isinstance(cell, Mapping):
        if cell.get("bytes") is not None:
            return io.BytesIO(cell["bytes"])
        path = cell.get("path")
    if is_missing(path) or not isinstance(path, str) or not path:
        raise ValueError(f"there is no name of a file, but {shown(cell)}.")
    if not (folder / path).is_file():
        raise ValueError(f"there is no file {str(folder / path)!r}.")
    return folder / path


def name_of(cell: Any) -> str | None:
    """Return what a cell calls its file; None where it but holds it.

    >>> name_of("a.wav"), name_of({"bytes": b"", "path": None})
    ('a.wav', None)
    """
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    return None if path is None else str(path)
