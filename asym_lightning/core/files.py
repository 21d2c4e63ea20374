"""Files and directories that appear whole or not at all, whenever the process that writes them is killed.

What is being written has the name ``.NAME.XXXXXXXX.saving`` beside ``NAME``. It is renamed when it is complete and on
the disk, and removed when writing fails. What a killed process leaves goes by :func:`remove_unfinished`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from asym_lightning.core.messages import shown

SUFFIX = ".saving"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_LONGEST_NAME = 255  # in bytes
_PROBE = b"\0" * 2**20  # more than what a disk that is full has left
REFUSALS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your share of the disk is used up; free some space",
    errno.EFBIG: "the file grew beyond the limit that is set; raise it",
    errno.EROFS: "the file system is read-only; make it writable, or write elsewhere",
    errno.EACCES: "that is not permitted; change the permissions of the folder, or write elsewhere",
    errno.EPERM: "that is not permitted; change the permissions of the folder, or write elsewhere",
    errno.EIO: "the disk fails; write elsewhere",
}
"""Why a system does not write, and what to do, by the number of its error."""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    r"""Give a path to write to, which becomes ``path`` when the context ends without an error.

    Folders above it are made. What is no regular file, such as ``/dev/stdout``, is written to itself.

    Args:
        path: The file; one that exists is replaced.

    Raises:
        OSError: The system does not write there, whatever words whoever wrote has for it: its `filename` is the folder.
            The old file is as it was.
        ValueError: There is a NUL in the path, or its name is too long.

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
    _check_path(path)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        yield Path(path)
        return
    path = Path(path).resolve()  # a link stays, and leads to the new file
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_path(path)
    try:
        with _refusals_name(path):
            yield staging
            _flush(staging)
            os.replace(staging, path)
            _flush(path.parent)
    except BaseException:
        with suppress(OSError):  # where nothing can be written any more, nothing can be removed
            staging.unlink()
        raise


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory to write to, which becomes ``path`` when the context ends without an error.

    Args:
        path: The directory; one that exists is replaced with all that is in it. Where the system can't swap two names,
            a kill in the instant between the two renames which that takes leaves neither.
    """
    _check_path(path)
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_path(path)
    try:
        with _refusals_name(path):
            staging.mkdir()
            yield staging
            for written in (*staging.rglob("*"), staging):
                _flush(written)
            if path.exists():
                _swap(staging, path)
            else:
                os.rename(staging, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # what failed, or was replaced


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


def _check_path(path: str | Path) -> None:
    if "\0" in str(path):
        raise ValueError(f"{shown(str(path))} is no path: there is a NUL in it.")
    if len(os.fsencode(staging_path(Path(path).absolute()).name)) > _LONGEST_NAME:
        raise ValueError(f"{shown(str(path))} is no path: its last name is too long.")


@contextmanager
def _refusals_name(path: Path) -> Iterator[None]:
    """Raise what keeps the system from writing as an `OSError` about the folder, and others not about `.saving`."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) and error.errno else _refusal(path.parent)
        named = getattr(error, "filename", None)
        file = Path(named) if isinstance(named, (str, os.PathLike)) else path
        is_elsewhere = not file.resolve().is_relative_to(path.parent)  # such as a file that is only read
        if number is None or is_elsewhere or not (number in REFUSALS or file.suffix == SUFFIX):
            raise
        raise OSError(number, os.strerror(number), str(path.parent if number in REFUSALS else path)) from error


def _refusal(folder: Path) -> int | None:
    """The number of the system's error on writing to a folder, which libraries report each in its own words."""
    probe = staging_path(folder / "probe")
    try:
        with open(probe, "xb") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    finally:
        with suppress(OSError):
            probe.unlink()
    return None


def _swap(new: Path, old: Path) -> None:
    """Let two directories have each other's names, in one instant where the system and its file system can."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # of Linux
    if renameat2 is not None:
        if renameat2(_HERE, os.fsencode(new), _HERE, os.fsencode(old), _EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(number, os.strerror(number), str(old))
    between = staging_path(old)
    os.rename(old, between)
    try:
        os.rename(new, old)
    except OSError:
        os.rename(between, old)
        raise
    os.rename(between, new)


def _flush(path: Path) -> None:
    """Have a file's data, or a directory's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
