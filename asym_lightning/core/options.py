"""Option objects: frozen dataclasses that say how something is made or done, each field documented once, where it is.

Configs nest them (`model.adapter`, `data.loader`), Python passes them whole, and checkpoints hold them as plain
dictionaries, from which they come back. Each checks itself when it is made.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from typing_extensions import Self

from asym_lightning.core.kinds import check_value
from asym_lightning.core.messages import did_you_mean

Options = TypeVar("Options")


def to_plain(value: Any) -> Any:
    """Return an option object as a dictionary that a checkpoint may hold; anything else as it is.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size:
    ...     width: int = 1
    >>> to_plain(Size(3)), to_plain("wide")
    ({'width': 3}, 'wide')
    """
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def from_plain(kind: type[Options], value: Any) -> Options | Any:
    """Return the option object that a mapping describes, the reverse of `to_plain`; anything else as it is.

    Args:
        kind: Class of the option object.
        value: A mapping of some or all of its fields, or what needs no change: an option object, None.

    Raises:
        ValueError: If the mapping names a field that the class lacks; the message suggests the nearest.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     width: int = 1
        >>> from_plain(Size, {"width": 3}), from_plain(Size, None)
        (Size(width=3), None)
    """
    if not isinstance(value, Mapping):
        return value
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in value:
        if name not in names:
            raise ValueError(f"{kind.__name__} has no option {name!r}{did_you_mean(name, names)}")
    return kind(**value)


class CheckedArguments:
    """A base of classes whose constructors take what their annotations say, and nothing else.

    It looks before the constructor runs, from wherever an object is made: a config, Python, a checkpoint's
    hyperparameters.

    >>> from asym_lightning.core.kinds import Count
    >>> class Crop(CheckedArguments):
    ...     def __init__(self, size: Count = 32) -> None:
    ...         self.size = size
    >>> Crop(0)
    Traceback (most recent call last):
    ValueError: `size` must be at least 1, not 0.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments.

        Raises:
            TypeError: If one is of another kind.
            ValueError: If one is none of a few choices, or out of its range.
        """
        parameters = inspect.signature(cls.__init__)  # type: ignore[misc]  # of whatever subclass
        try:
            given = parameters.bind_partial(None, *args, **kwargs).arguments
        except TypeError:  # which the constructor says better
            given = {}
        annotations = annotations_of(cls)  # type: ignore[arg-type]
        for name, value in given.items():
            if name in annotations:
                check_value(name, value, annotations[name])
        return super().__new__(cls)


@functools.cache
def annotations_of(cls: Any) -> dict[str, Any]:
    """Annotations of a constructor's arguments, by name; none where they can't be told."""
    try:
        return get_type_hints(cls.__init__, include_extras=True)
    except NameError:  # of names that are imported for type checkers alone
        return {}


def check_kinds(options: Any) -> None:
    """Check that each field of an option object is of the kind that its annotation says.

    A dataclass calls this first in its `__post_init__`, and then looks at what only it knows, such as ranges.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it is none of the choices of a `Literal`, or out of its range; the message suggests the nearest.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     width: int | None = None
        ...     __post_init__ = check_kinds
        >>> Size("3")
        Traceback (most recent call last):
        TypeError: `width` must be an integer or null, not '3'.
    """
    for name, annotation in get_type_hints(type(options), include_extras=True).items():
        if name in (field.name for field in dataclasses.fields(options)):
            check_value(name, getattr(options, name), annotation)
