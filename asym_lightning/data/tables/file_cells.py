"""Cells of tables that name a file, or hold what is in one, as data sets of the hub do with sound and pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asym_lightning.core.messages import shortened, shown


def file_of(cell: Any, folder: Path) -> Path | io.BytesIO:
    """Return the file that a cell names or holds.

    Args:
        cell: A path, or an object with `bytes` and, maybe, `path`.
        folder: What paths that are not absolute start from.

    Raises:
        ValueError: If it is neither, or there is no such file.
    """
    if isinstance(cell, Mapping):
        if isinstance(cell.get("bytes"), bytes):
            return io.BytesIO(cell["bytes"])
        cell = cell.get("path")
    return file_in(cell, folder)


def file_in(cell: Any, folder: Path) -> Path:
    """Return the file that a cell names.

    Args:
        cell: A path.
        folder: What paths that are not absolute start from.

    Raises:
        ValueError: If it is none, or there is no such file.

    Example:
        >>> file_in("gone.wav", Path("sounds"))
        Traceback (most recent call last):
        ValueError: there is no file 'gone.wav' in sounds.
    """
    path = path_in(cell, folder)
    if not os.path.isfile(path):  # which says so of a name that no file can have, where that of a `Path` fails
        raise ValueError(f"there is no file {shown(cell)} in {shortened(str(folder), 200)}.")
    return path


def path_in(cell: Any, folder: Path) -> Path:
    """Return the path that a cell names, whatever is there.

    Args:
        cell: A path.
        folder: What paths that are not absolute start from.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(cell, str) or not cell.strip():
        raise ValueError(f"there is no name of a file, but {shown(cell)}.")
    return folder / cell.strip()


def name_of(cell: Any) -> str | None:
    """Return what a cell calls its file; None where it but holds it.

    >>> name_of("a.wav"), name_of({"bytes": b"", "path": None})
    ('a.wav', None)
    """
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    return None if path is None else str(path)
