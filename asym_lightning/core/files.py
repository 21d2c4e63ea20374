"""Files and directories that appear whole or not at all, whenever the process that writes them is killed.

What is being written has the name ``.NAME.XXXXXXXX.saving`` beside ``NAME``. It is renamed when it is complete and on
the disk, and removed when writing fails. What a killed process leaves goes by :func:`remove_unfinished`.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SUFFIX = ".saving"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_SPACE_LEFT = 2**20  # on a disk that is full, bytes that no one can use


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    r"""Give a path to write to, which becomes ``path`` when the context ends without an error.

    Folders above it are made. What is no regular file, such as ``/dev/stdout``, is written to itself.

    Args:
        path: The file; one that exists is replaced.

    Raises:
        OSError: The disk is full, whatever words whoever wrote has for it; the old file is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(Path(folder, "scores.txt")) as staging:
        ...         _ = staging.write_text("1\n")
        ...         os.listdir(folder) == [staging.name]
        ...     os.listdir(folder)
        True
        ['scores.txt']
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        yield Path(path)
        return
    path = Path(path).resolve()  # a link stays, and leads to the new file
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_path(path)
    try:
        yield staging
        _flush(staging)
        os.replace(staging, path)
    except BaseException as error:
        is_full = _is_disk_full(error, path.parent)
        staging.unlink(missing_ok=True)
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    _flush(path.parent)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory to write to, which becomes ``path`` when the context ends without an error.

    Args:
        path: The directory; one that exists is replaced with all that is in it. A kill in the instant between the two
            renames which that takes leaves neither.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging, replaced = staging_path(path), staging_path(path)
    staging.mkdir()
    try:
        yield staging
        for written in (*staging.rglob("*"), staging):
            _flush(written)
        if path.exists():
            os.rename(path, replaced)
        os.rename(staging, path)
    except BaseException as error:
        is_full = _is_disk_full(error, path.parent)
        shutil.rmtree(staging, ignore_errors=True)
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    _flush(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, with its line ends as they are, by :func:`atomic_file`."""
    with atomic_file(path) as staging:
        staging.write_bytes(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write what JSON can say, for people to read, by :func:`atomic_file`."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    r"""What :func:`write_json` writes.

    >>> json_text({"rank": 8})
    '{\n  "rank": 8\n}\n'
    """
    return json.dumps(value, indent=2) + "\n"


def read_json(path: str | Path) -> Any:
    """Read what :func:`write_json` wrote, or anybody else.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON; the message names it.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"`{path}` is no file.")  # a pipe, from which nothing may ever come
    return parse_json(Path(path).read_bytes(), f"`{path}`")


def parse_json(text: str | bytes, where: str) -> Any:
    """Read JSON from a text that a message is to call something.

    Raises:
        ValueError: It is not JSON, or nested too deep.

    Example:
        >>> parse_json(b"[1, 2", "`scores.json`")
        Traceback (most recent call last):
        ValueError: `scores.json` is not valid JSON (Expecting ',' delimiter: line 1 column 6 (char 5)).
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not valid JSON (byte {error.start + 1} is no UTF-8).") from error
    except RecursionError:
        raise ValueError(f"{where} is not valid JSON (it is nested too deep).") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error}).") from error


def remove_unfinished(folder: str | Path, *, older_than: float = 0) -> None:
    """Remove what killed processes left in a folder; what is further down stays.

    Args:
        folder: The folder; it need not exist.
        older_than: Seconds since the last change. 0 is for a folder that no other process is writing to.
    """
    for unfinished in Path(folder).glob(f".*{SUFFIX}"):
        try:
            if time.time() - unfinished.stat().st_mtime < older_than:
                continue
            if unfinished.is_dir():
                shutil.rmtree(unfinished, ignore_errors=True)
            else:
                unfinished.unlink(missing_ok=True)
        except FileNotFoundError:  # renamed or removed by its own process just now
            continue


def staging_path(path: Path) -> Path:
    """What a file or directory is called while it is being written; another one each time."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")


def _is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether writing failed for want of space, which libraries say each in its own words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_SPACE
    return isinstance(error, Exception) and shutil.disk_usage(folder).free < _SPACE_LEFT


def _flush(path: Path) -> None:
    """Have a file's data, or a directory's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
