"""Ctrl-C and SIGTERM, at whatever instant: the first one ends the command, and those after it change nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

PATIENCE = 5.0
"""Seconds in which a command may clean up; only after that does another Ctrl-C end it at once."""
_REMINDER = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interrupts:
    """What has come, and whether it was heard."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.is_heard = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = time.monotonic()
            # What is raised in the middle of a destructor or a callback of the garbage collector, Python drops.
            signal.setitimer(signal.ITIMER_REAL, _REMINDER, _REMINDER)
            raise KeyboardInterrupt
        if time.monotonic() - self.first > PATIENCE:
            os.write(2, b"\ninterrupted\n")
            os._exit(130)

    def remind(self, number: int, frame: FrameType | None) -> None:
        # Lightning ignores Ctrl-C while it brings a run to its end.
        if not self.is_heard and signal.getsignal(signal.SIGINT) == self.handle:
            raise KeyboardInterrupt

    def hear(self) -> None:
        if self.first is not None:
            self.is_heard = True
            signal.setitimer(signal.ITIMER_REAL, 0)


_current: list[_Interrupts] = []


@contextmanager
def interruptible(*, ends_process: bool = False) -> Iterator[None]:
    """Raise `KeyboardInterrupt` for the first signal in the context, again if it was dropped, and for no further ones.

    Only the main thread can; in another one nothing changes.

    Args:
        ends_process: Ignore signals after the context too, so that nothing disturbs Python on its way out.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = _Interrupts()
    handlers = {number: signal.signal(number, interrupts.handle) for number in _SIGNALS}
    handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupts.remind)
    _current.append(interrupts)
    try:
        yield
    finally:
        _current.pop()
        interrupts.hear()
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_IGN if ends_process else handler)


def heard() -> None:
    """Say that the interrupt has arrived, so that nobody is reminded of it."""
    for interrupts in _current:
        interrupts.hear()


def leaving_termination_to_trainer() -> AbstractContextManager[None]:
    """Let Lightning take SIGTERM for itself, which it does where no one else has: it ends after the step, and saves."""
    return _handled_by(signal.SIGTERM, signal.SIG_DFL) if _current else nullcontext()


def interruptible_again() -> AbstractContextManager[None]:
    """Let each Ctrl-C raise `KeyboardInterrupt`, for what goes on after it."""
    return _handled_by(signal.SIGINT, signal.default_int_handler)


def keeping_interrupts() -> AbstractContextManager[None]:
    """Let Ctrl-C mean afterwards what it means now, for Lightning leaves it ignored."""
    return _handled_by(signal.SIGINT, signal.getsignal(signal.SIGINT))


@contextmanager
def _handled_by(number: int, handler: Any) -> Iterator[None]:
    """Let a signal have another handler in the context; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
