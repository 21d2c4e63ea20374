"""Option objects: frozen dataclasses that say how something is made or done, each field documented once, where it is.

Configs nest them (`model.adapter`, `data.loader`), Python passes them whole, and checkpoints hold them as plain
dictionaries, from which they come back. Each checks itself when it is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asym_lightning.core.messages import did_you_mean, suggestion

Options = TypeVar("Options")
_KINDS: Mapping[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "text"),
    dict: (Mapping, "a mapping"),
    type(None): (type(None), "null"),
}


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


def check_kinds(options: Any) -> None:
    """Check that each field of an option object is of the kind that its annotation says.

    A dataclass calls this first in its `__post_init__`, and then looks at what only it knows, such as ranges.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it is none of the choices of a `Literal`; the message suggests the nearest.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     width: int | None = None
        ...     __post_init__ = check_kinds
        >>> Size("3")
        Traceback (most recent call last):
        TypeError: `width` must be an integer or null, not '3'.
    """
    for name, annotation in get_type_hints(type(options)).items():
        value = getattr(options, name)
        alternatives = get_args(annotation) if _is_union(annotation) else (annotation,)
        if any(_is_kind(value, alternative) for alternative in alternatives):
            continue
        choices = [choice for part in alternatives if get_origin(part) is Literal for choice in get_args(part)]
        words = [f"one of {', '.join(map(str, choices))}"] if choices else []
        words += [_KINDS[_plain(part)][1] for part in alternatives if _plain(part) in _KINDS]
        message = f"`{name}` must be {' or '.join(words)}, not {'null' if value is None else repr(value)}"
        if choices and isinstance(value, str):
            raise ValueError(f"{message}{suggestion(value, choices)}")
        raise TypeError(f"{message}.")


def _is_union(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"  # `Optional[int]`, `int | None`


def _is_kind(value: Any, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    kind, _ = _KINDS.get(_plain(annotation), (object, ""))
    if isinstance(value, bool):  # a number to Python
        return kind in (bool, object)
    return isinstance(value, kind)


def _plain(annotation: Any) -> Any:
    return get_origin(annotation) or annotation
