"""What is done to a module, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

_ABSENT = object()


class Changes:
    """What is done to modules and their parameters, for as long as it may have to be undone.

    Noted are classes and attributes of modules, what is in attributes that are dictionaries, such as hooks and
    children, and which parameters train, and in what dtype; not the numbers in them.

    Example:
        >>> layer, changes = nn.Linear(2, 2), Changes()
        >>> with changes.noted(layer):
        ...     layer.name = "first"
        ...     _ = layer.weight.requires_grad_(False)
        >>> changes.undo()
        >>> hasattr(layer, "name"), layer.weight.requires_grad
        (False, True)
    """

    def __init__(self) -> None:
        self._steps_back: list[Callable[[], None]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has nothing to undo: it comes with a copy of a module, or in a file."""
        return Changes, ()

    @contextmanager
    def noted(self, module: nn.Module) -> Iterator[None]:
        """Note what is done to a module and all within it in a block, though an error ends it."""
        kinds = [(part, type(part)) for part in module.modules()]
        dictionaries = [(d, dict(d)) for part, _ in kinds for d in (vars(part), *_dictionaries_in(part))]
        parameters = [(p, p.requires_grad, p.dtype) for p in module.parameters()]
        try:
            yield
        finally:
            self._steps_back += [
                *(partial(setattr, part, "__class__", kind) for part, kind in kinds if type(part) is not kind),
                *(partial(_put_into, d, was) for d, before in dictionaries if (was := _changed(d, before))),
                *(partial(_set, *was) for was in parameters if (was[0].requires_grad, was[0].dtype) != was[1:]),
            ]

    def undo(self) -> None:
        """Put everything back, the latest first, and forget it."""
        while self._steps_back:
            self._steps_back.pop()()

    def forget(self) -> None:
        """Let what was done stay."""
        self._steps_back.clear()


def _dictionaries_in(part: nn.Module) -> Iterator[dict[Any, Any]]:
    return (value for value in vars(part).values() if isinstance(value, dict))


def _changed(dictionary: dict[Any, Any], before: dict[Any, Any]) -> dict[Any, Any]:
    """What has become another object, as it was before."""
    names = dict.fromkeys([*before, *dictionary])
    was = {name: before.get(name, _ABSENT) for name in names}
    return {name: value for name, value in was.items() if dictionary.get(name, _ABSENT) is not value}


def _put_into(dictionary: dict[Any, Any], values: dict[Any, Any]) -> None:
    for name, value in values.items():
        if value is _ABSENT:
            dictionary.pop(name, None)
        else:
            dictionary[name] = value


def _set(parameter: nn.Parameter, trains: bool, dtype: Any) -> None:
    parameter.data = parameter.data.to(dtype)
    parameter.requires_grad_(trains)
