"""Lightning goes by two names: the packages `lightning.pytorch` and `pytorch_lightning` hold the same classes twice.

This package is written against the first, and projects are written against either. A class and its twin have the same
name in modules of the same name, and where a twin's module isn't loaded there is no object of it: so the second package
is never imported here. All that asks whether something is a Trainer's, a module's or a strategy's asks :func:`either`.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

Kind = TypeVar("Kind")

_TWINS = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


def either(kind: type[Kind]) -> tuple[type[Kind], ...]:
    """A class of `lightning` and its twin, for `isinstance`; the class alone where the twin's package isn't loaded.

    >>> from lightning.pytorch import Callback
    >>> either(Callback)[0] is Callback, either(dict)
    (True, (<class 'dict'>,))
    """
    twin = _twin(kind)
    return (kind,) if twin is None else (kind, twin)


def known_to_both(callback: Callback) -> None:
    """Let a callback be an object of the twin of Lightning's class that it is of, too, if that is loaded.

    A Trainer asks callbacks for their class where it puts those that write checkpoints last and looks for the best one.

    Args:
        callback: One of this package; the class that it gets instead of its own has the same name and methods.
    """
    cls: Any = type(callback)
    for base in cls.__mro__:
        twin = _twin(base)
        if twin is not None:
            if not issubclass(cls, twin):
                callback.__class__ = _class_of_both(cls, twin)
            return


def check_release(trainer: Trainer) -> None:
    """Check that a Trainer is of the release of Lightning that this package is written for, whatever it goes by.

    What is installed as `lightning` is so by this package's requirements, which say nothing of the other.

    Raises:
        ValueError: The Trainer is of another release of `pytorch_lightning`.
    """
    packages = {cls.__module__.partition(".")[0] for cls in type(trainer).__mro__}
    if "pytorch_lightning" not in packages:
        return
    found, expected = (sys.modules[package].__version__ for package in ("pytorch_lightning", "lightning"))
    if found.split(".")[:2] != expected.split(".")[:2]:
        raise ValueError(
            f"The Trainer is of `pytorch_lightning` {found} and `lightning` is {expected}, which keep their place in a "
            f"run differently: pip install pytorch-lightning=={expected}."
        )


def _twin(kind: type) -> Any:
    for package, other in _TWINS.items():
        if kind.__module__.startswith(f"{package}."):
            module = sys.modules.get(other + kind.__module__.removeprefix(package))
            return getattr(module, kind.__name__, None)
    return None


@functools.cache
def _class_of_both(cls: type, twin: type) -> type:
    def reduce(self: Any, protocol: Any) -> Any:  # a class made here can't be found by its name
        return _empty, (cls,), vars(self)

    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (cls, twin), {**names, "__reduce_ex__": reduce})


def _empty(cls: type[Callback]) -> Callback:
    callback = cls.__new__(cls)
    known_to_both(callback)
    return callback
