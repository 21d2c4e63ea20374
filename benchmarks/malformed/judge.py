"""Make one call in this process, within bounds of time and memory, and say how it ended."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import re
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from asym_lightning.cli.errors import HEADINGS, one_sentence
from asym_lightning.cli.usage import UsageError
from benchmarks.malformed.case import ACCEPTED, GOOD, LARGE, LEFT, LONG, RAW, SLOW, TOUCHED, UNNAMED, Case, Verdict

SECONDS, GIGABYTES, LETTERS = 10.0, 1.5, 300
WAITING = 6  # times as long by the clock, in which other processes may have the cores
# What people are told; other exceptions are those of a line that did not expect what it got.
_TOLD = (ValueError, TypeError, OSError, RuntimeError, UsageError, ImportError, MisconfigurationException)
_NOT_TOLD = (UnicodeError, RecursionError, NotImplementedError)
_OF_LIBRARIES = re.compile(r"Traceback|\x1b|<class '|object at 0x|torch\.\w+\(|\.py\b|Errno|aten::|Parser key")


class Touched(Exception):
    """A refused call changed what it was given."""


class _Hanging(BaseException):
    pass


def judge(area: str, case: Case) -> Verdict:
    """Make a call in a folder of its own, and judge the answer."""
    with tempfile.TemporaryDirectory(prefix="malformed") as name:
        folder = Path(name)
        case.make(folder)
        before = _contents(folder)
        started = time.process_time()
        kind, message = _answer(case, folder)
        seconds = time.process_time() - started
        if kind == GOOD and _contents(folder) != before:
            kind = LEFT
    return Verdict(area, case.name, kind, message, seconds)


def _answer(case: Case, folder: Path) -> tuple[str, str]:
    try:
        with _bounded(), _silent(), _inside(folder):
            case.call(folder)
    except _Hanging:
        return SLOW, f"still at it after {SECONDS:g} s of work, or {WAITING} times as long by the clock"
    except MemoryError:
        return LARGE, "out of memory"
    except Touched as touched:
        return TOUCHED, str(touched)
    except Exception as error:  # any is an answer
        return _judged(error, case, folder)
    return ACCEPTED, ""


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder; `contextlib.chdir` is of Python 3.11."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _judged(error: Exception, case: Case, folder: Path) -> tuple[str, str]:
    message = one_sentence(error)
    short = message.replace(f"{folder}/", "").replace(str(folder), "")
    if "allocate memory" in message:
        return LARGE, short
    is_usage = type(error).__name__ == "ArgumentError"
    # What the command line prints is cut short; who calls from Python reads what was raised.
    is_report = is_usage or any(heading in str(error) for heading in HEADINGS)  # of jsonargparse, which no one sees
    if not is_report and len(str(error).strip().replace(f"{folder}/", "")) > LETTERS:
        return LONG, short
    if not (isinstance(error, _TOLD) or is_usage) or isinstance(error, _NOT_TOLD) or _OF_LIBRARIES.search(short):
        return RAW, f"{type(error).__name__}: {short}"
    if not any(offender in message for offender in case.offenders):
        return UNNAMED, short
    return GOOD, short


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """End a call that takes too long, and let one fail that takes too much memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(GIGABYTES * 2**30)

    def hangs(signum: int, frame: FrameType | None) -> None:
        raise _Hanging

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAITING * SECONDS)}
    previous = {number: signal.signal(number, hangs) for number, _ in timers.values()}
    faulthandler.dump_traceback_later(2 * WAITING * SECONDS, exit=True)  # of what no signal interrupts
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds, 1.0)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for timer in timers:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of change of all that is in a folder."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        found[str(path.relative_to(folder))] = (state.st_size, state.st_mtime_ns) if path.is_file() else (0, 0)
    return found
