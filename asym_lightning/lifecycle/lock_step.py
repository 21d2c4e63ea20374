"""Functions that run by turns in one process, and meet where something can be done once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from asym_lightning.core.random_state import GeneratorStates

Work = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True)
class _Request:
    key: Hashable
    value: Any
    work: Work


class _Turns:
    """What is known of one function."""

    def __init__(self, enter: Callable[[], None]) -> None:
        self.enter = enter
        self.turn = threading.Semaphore(0)
        self.is_ready = True
        self.request: _Request | None = None
        self.group: Sequence[_Turns] = ()
        self.result: Any = None
        self.error: BaseException | None = None
        self.process = _ProcessState.now()


@dataclass(frozen=True)
class _ProcessState:
    """What a function has for itself although a process has it once; modes of torch are each thread's own."""

    random: GeneratorStates
    dtype: torch.dtype

    @classmethod
    def now(cls) -> _ProcessState:
        return cls(GeneratorStates.now(), torch.get_default_dtype())

    def restore(self) -> None:
        self.random.restore()
        torch.set_default_dtype(self.dtype)


class LockStep:
    """Runs functions one at a time, each in a thread of its own, in which nothing changes but when it waits.

    Where all of them wait in :meth:`meet`, or are over, those that wait for the same are served at once. Random states
    and the default dtype are each function's own, so that it does what it would do alone.

    Example:
        >>> steps, met = LockStep(), []
        >>> def add(number):
        ...     met.append(steps.meet("sum", number, lambda numbers: [sum(numbers)] * len(numbers)))
        >>> steps.run([lambda: add(1), lambda: add(2)])
        >>> met
        [3, 3]
    """

    def __init__(self) -> None:
        self._all: list[_Turns] = []
        self._all_over = threading.Event()
        self._own = threading.local()

    def run(self, functions: Sequence[Callable[[], None]], enter: Sequence[Callable[[], None]] = ()) -> None:
        """Run functions until all are over.

        Args:
            functions: They see to their errors themselves.
            enter: Called when it is the turn of each; none by default.
        """
        self._all = [_Turns(one) for one in enter or [_nothing] * len(functions)]
        self._all_over.clear()
        threads = [
            threading.Thread(target=self._run, args=pair, daemon=True)  # an interrupt of the process does not wait
            for pair in zip(self._all, functions, strict=True)
        ]
        for thread in threads:
            thread.start()
        before = _ProcessState.now()
        self._all[0].turn.release()
        try:
            self._all_over.wait()
        finally:
            before.restore()

    def meet(self, key: Hashable, value: Any, work: Work) -> Any:
        """Wait until all functions wait or are over, and for the work that is then done once for those of an equal key.

        Args:
            key: What is to be done.
            value: This function's part.
            work: From the values of all to their results, in the thread and the modes of one of them.

        Raises:
            RuntimeError: Nobody runs beside the caller.
        """
        own: _Turns | None = getattr(self._own, "turns", None)
        if own is None:
            raise RuntimeError(
                "What trains together with others has to be called by `Together.run`, in which they run."
            )
        own.request, own.is_ready = _Request(key, value, work), False
        self._pass_on(own)
        self._wait_for_turn(own)
        if own.group:
            _serve(own.group)
        error, own.error = own.error, None
        if error is not None:
            raise error
        result, own.result = own.result, None
        return result

    def _run(self, own: _Turns, function: Callable[[], None]) -> None:
        self._own.turns = own
        try:
            self._wait_for_turn(own)
            function()
        finally:
            own.request, own.is_ready = None, False
            self._pass_on(own)

    def _wait_for_turn(self, own: _Turns) -> None:
        own.turn.acquire()
        own.process.restore()
        own.enter()

    def _pass_on(self, own: _Turns) -> None:
        own.process = _ProcessState.now()
        place = self._all.index(own) + 1
        ready = (one for one in self._all[place:] + self._all[:place] if one.is_ready)
        following = next(ready, None) or _first_to_serve(self._all)
        if following is None:
            self._all_over.set()
        else:
            following.turn.release()


def _nothing() -> None:
    pass


def _first_to_serve(turns: Sequence[_Turns]) -> _Turns | None:
    """Let one of each group of those that wait, which are all that are not over, do the work of its group."""
    groups: dict[Hashable, list[_Turns]] = {}
    for one in turns:
        if one.request is not None:
            groups.setdefault(one.request.key, []).append(one)
    for group in groups.values():
        group[0].group, group[0].is_ready = group, True
    return next(iter(groups.values()))[0] if groups else None


def _serve(group: Sequence[_Turns]) -> None:
    requests = [one.request for one in group if one.request is not None]
    try:
        for one, result in zip(group, requests[0].work([request.value for request in requests]), strict=True):
            one.result = result
    except BaseException as error:
        for one in group:
            one.error = error
    for one in group:
        one.request, one.is_ready = None, True
    group[0].group = ()
