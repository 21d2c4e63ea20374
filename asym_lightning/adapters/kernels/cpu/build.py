"""Compile C files once a machine, and keep the shared library for every process that comes later.

Its name is made of what went into it and of its own bytes, ``<what went in>-<bytes>.so``: sources that changed, another
compiler or another processor (machines share home folders) look for another file, and the name of one that a disk has
damaged gives it away.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from asym_lightning.core.files import remove_unfinished, staging_path

try:
    import fcntl
except ImportError:  # no POSIX: nothing is built there
    fcntl = None  # type: ignore[assignment]

# Apple's compiler knows no OpenMP, and some know no native processor: fewer threads or narrower vectors will do.
FLAGS = (("-march=native", "-fopenmp"), ("-march=native",), ())
MAX_SECONDS = 120.0
# What tells apart two processors for which a compiler writes other code: in /proc/cpuinfo, on x86, ARM, POWER, RISC-V.
_TRAITS = (
    "vendor_id", "cpu family", "model", "model name", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features", "cpu", "isa",
)  # fmt: skip
# Run by `sh` with a folder and the compiler's command. The command becomes the compiler, in a process group of its own
# with a watcher, who ends the group and takes the folder away when the pipe on standard input ends: that is, when the
# process that builds does, in whatever way. (A signal to the compiler alone, which Linux offers for a parent's death,
# would leave those that it starts.)
_WATCHED = """
exec 3<&0 </dev/null
(trap '' TERM; read -r _ <&3; kill -TERM 0; rm -rf -- "$0"; kill -KILL 0) >/dev/null 2>&1 &
mkdir -- "$0" && TMPDIR=$0 exec "$@" 3<&-
"""


def shared_library(sources: Sequence[Path], directory: Path) -> Path:
    """Path of the compiled sources, which it compiles if no process has done so yet; several may ask at once.

    Args:
        sources: C files, and the headers beside them.
        directory: Where to keep the library; made if need be.

    Raises:
        OSError: The directory can't be written to.
        RuntimeError: There is no compiler, or it fails; the message is a clause that says why.
    """
    command = _compiler()
    key = _digest(*(source.read_bytes() for source in sources), FLAGS, _identity(command), _processor())
    if found := _kept(key, directory):
        return found
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise PermissionError(f"`{directory}` can't be written to")
    with _alone_in(directory) as is_alone:
        if found := _kept(key, directory):  # another process has built it while this one waited
            return found
        if is_alone:
            remove_unfinished(directory)  # of a machine that lost its power: a build and its watcher ended at once
        return _build(key, command, sources, directory)


def _kept(key: str, directory: Path) -> Path | None:
    """The library of that key whose bytes are what its name says."""
    paths = directory.glob(f"{key}-*.so")
    return next((path for path in paths if path.stem == f"{key}-{_digest(path.read_bytes())}"), None)


def _build(key: str, command: Sequence[str], sources: Sequence[Path], directory: Path) -> Path:
    units = [str(source) for source in sources if source.suffix == ".c"]
    for damaged in directory.glob(f"{key}-*.so"):
        damaged.unlink(missing_ok=True)
    for flags in FLAGS:
        staging = staging_path(directory / "library")
        made = staging / "library.so"
        options = ["-O3", "-shared", "-fPIC", *flags, *units, "-o", str(made)]
        try:
            with _running([*command, *options], staging) as outcome:
                if outcome.returncode == 0 and made.is_file():
                    path = directory / f"{key}-{_digest(made.read_bytes())}.so"
                    os.replace(made, path)
                    return path
        finally:
            shutil.rmtree(staging, ignore_errors=True)  # sooner than the watcher does
    lines = outcome.stderr.strip().splitlines() or [f"it ended with status {outcome.returncode}"]
    raise RuntimeError(f"`{shlex.join(command)}` failed: {next((x for x in lines if 'error' in x), lines[-1])}")


@contextmanager
def _running(command: Sequence[str], staging: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run a compiler to its end; it, what it starts and its folder go when the context or this process ends."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            ["sh", "-c", _WATCHED, str(staging), *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        ) as process,
    ):  # fmt: skip
        try:
            status = process.wait(timeout=MAX_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"`{shlex.join(command[:1])}` had not finished after {MAX_SECONDS:g} seconds") from None
        errors.seek(0)
        yield subprocess.CompletedProcess(command, status, stderr=errors.read().decode(errors="replace"))


@contextmanager
def _alone_in(directory: Path) -> Iterator[bool]:
    """Wait until no other process builds there; whether that is known.

    The lock is on the directory itself and goes with this process, so there is no file of it to leave behind. Some
    network file systems have none: then several processes may build the same, each in a folder of its own.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _compiler() -> list[str]:
    if fcntl is None:
        raise RuntimeError("they are for Linux and macOS")
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        raise RuntimeError("there is no C compiler (`cc`, `gcc`, `clang` or `$CC`)")
    return [found]


def _identity(command: Sequence[str]) -> tuple[object, ...]:
    """What changes with the compiler's version. To ask for that would start the compiler in every process."""
    program = shutil.which(command[0])
    if program is None:
        raise RuntimeError(f"`$CC` names `{command[0]}`, which is no program here")
    file = os.path.realpath(program)
    status = os.stat(file)
    return (*command, file, status.st_size, status.st_mtime_ns)


def _processor() -> tuple[str, ...]:
    """What a compiler's code for the processor at hand depends on."""
    names = (platform.machine(), platform.processor())
    try:
        with open("/proc/cpuinfo") as file:
            first_core = list(takewhile(str.strip, file))
    except OSError:  # not on Linux
        return names
    return (*names, *(line for line in first_core if line.partition(":")[0].strip() in _TRAITS))


def _digest(*parts: object) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:24]
