"""What a value may be, as an annotation says it, for options and for what files hold.

An annotation is a plain type, a union, a `Literal`, a list or a mapping of such, a number in a :class:`Range`
(`Annotated[int, Range(1)]`), or a list that is :class:`Distinct`. Numbers are finite and fit into 32 bits, integers
into 64, whatever their range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from asym_lightning.core.messages import did_you_mean, shown, suggestion

_KINDS: Mapping[Any, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "text"),
    dict: (Mapping, "a mapping"),
    Mapping: (Mapping, "a mapping"),
    list: ((list, tuple), "a list"),  # type: ignore[dict-item]
    tuple: ((list, tuple), "a list"),  # type: ignore[dict-item]
    Sequence: (Sequence, "a list"),
    type(None): (type(None), "null"),
}
_LARGEST_INTEGER, _LARGEST_FLOAT = 2**63 - 1, 3.4e38  # of 64 and of 32 bits


@dataclass(frozen=True)
class Range:
    """The numbers between two, which belong to it unless it is open there.

    >>> str(Range(1)), str(Range(0, 1)), str(Range(0, 1, is_open_above=True)), str(Range(0, is_open_below=True))
    ('at least 1', 'in [0, 1]', 'in [0, 1)', 'positive and finite')
    """

    low: float = -math.inf
    high: float = math.inf
    is_open_below: bool = False
    is_open_above: bool = False

    def __contains__(self, number: Any) -> bool:
        is_low = number <= self.low if self.is_open_below else number < self.low
        is_high = number >= self.high if self.is_open_above else number > self.high
        return not (is_low or is_high)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"in {'[('[self.is_open_below]}{self.low:g}, {self.high:g}{'])'[self.is_open_above]}"
        if self.is_open_below:
            return "positive and finite" if self.low == 0 else f"above {self.low:g}"
        return f"at least {self.low:g}" if self.low > -math.inf else "finite"


@dataclass(frozen=True)
class Distinct:
    """That nothing is in a list twice."""

    def check(self, name: str, values: Sequence[Any]) -> None:
        """Check values.

        Raises:
            ValueError: If one is there twice.
        """
        for index, value in enumerate(values):
            if value in values[:index]:
                raise ValueError(f"`{name}` has {shown(value)} twice; each must be there once.")


_FINITE, _IN_64_BITS = Range(), Range(-_LARGEST_INTEGER, _LARGEST_INTEGER)

Names = Sequence[str] | str  # several, or one that needs no brackets
LabelNames = Annotated[Sequence[str], Distinct()]  # of classes, by number
Count = Annotated[int, Range(1)]
NumberOrZero = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
FractionBelowOne = Annotated[float, Range(0, 1, is_open_above=True)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, is_open_below=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy takes


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Check that a value is what an annotation says.

    Args:
        name: What the message calls it.
        value: The value.
        annotation: What it may be; what is not known here may be anything.

    Raises:
        TypeError: If it is of another kind.
        ValueError: If it is none of the choices, or a number out of range.

    Example:
        >>> check_value("dropout", 1.5, Annotated[float, Range(0, 1)])
        Traceback (most recent call last):
        ValueError: `dropout` must be in [0, 1], not 1.5.
    """
    alternatives = list(_alternatives(annotation))
    fitting = [(kind, limits) for kind, limits in alternatives if _is_kind(value, kind)]
    if not fitting:
        raise _wrong_kind(name, value, [kind for kind, _ in alternatives])
    kind, limits = fitting[0]
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (int, float):
        words = " or null" if any(kind is type(None) for kind, _ in alternatives) else ""
        _check_range(name, value, limits if isinstance(limits, Range) else _FINITE, words)
        if isinstance(value, Integral):
            _check_range(name, value, _IN_64_BITS, words)
    elif origin in (list, tuple, Sequence) and parts:
        for index, part in enumerate(value):
            check_value(f"{name}[{index}]", part, parts[0])
        if isinstance(limits, Distinct):
            limits.check(name, value)
    elif origin in (dict, Mapping) and parts:
        for key, part in value.items():
            check_value(f"a key of {name}", key, parts[0])
            check_value(f"{name}[{shown(key)}]", part, parts[1])


def as_names(given: Names) -> tuple[str, ...]:
    """Return names that are given one by one, or a single one, as a tuple.

    >>> as_names("text"), as_names(["question", 1])
    (('text',), ('question', '1'))
    """
    return (given,) if isinstance(given, str) else tuple(map(str, given))


def check_fields(
    where: str, found: Any, fields: Mapping[str, Any], required: Sequence[str] = (), *, prefix: str = ""
) -> None:
    """Check that a mapping that was read has fields of some kinds; fields of other names are left alone.

    Args:
        where: What the message calls the mapping.
        found: What was read.
        fields: Annotations by field.
        required: Fields that may not be missing.
        prefix: What stands before their names in messages, such as `trainer.`.

    Raises:
        TypeError: If it is no mapping, or a field is of another kind.
        ValueError: If a field is missing or out of range.
    """
    if not isinstance(found, Mapping):
        raise TypeError(f"{where} must be a mapping, not {shown(found)}.")
    for name in required:
        if name not in found:
            raise ValueError(f"{where} lacks `{name}`.")
    for name, annotation in fields.items():
        if name in found:
            check_value(prefix + name, found[name], annotation)


def check_names(where: str, found: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check that a mapping has no other fields than some.

    Raises:
        ValueError: If there is another; the message suggests the nearest.
    """
    for name in found:
        if name not in known:
            raise ValueError(f"{where} has an unknown key {shown(name)}{did_you_mean(name, known)}")


def _wrong_kind(name: str, value: Any, kinds: Sequence[Any]) -> Exception:
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    words = [f"one of {', '.join(map(str, choices))}"] if choices else []
    words += [_KINDS[_plain(kind)][1] for kind in kinds if _plain(kind) in _KINDS]
    message = f"`{name}` must be {' or '.join(words)}, not {shown(value)}"
    if choices and isinstance(value, str):
        return ValueError(f"{message}{suggestion(value, choices)}")
    return TypeError(f"{message}.")


def _check_range(name: str, value: Any, limits: Range, or_else: str) -> None:
    if (not isinstance(value, Integral) and not abs(value) <= _LARGEST_FLOAT) or value not in limits:
        raise ValueError(f"`{name}` must be {limits}{or_else}, not {shown(value)}.")


def _alternatives(annotation: Any) -> Iterator[tuple[Any, Range | Distinct | None]]:
    """What a union is of, each with its range or what else holds of it."""
    if get_origin(annotation) is Annotated:
        kind, *others = get_args(annotation)
        limits = next((other for other in others if isinstance(other, (Range, Distinct))), None)
        yield from ((kind, limits) for kind, _ in _alternatives(kind))
    elif _is_union(annotation):
        for part in get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation, None


def _is_union(annotation: Any) -> bool:
    origin = get_origin(annotation)
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"  # `Optional[int]`, `int | None`


def _is_kind(value: Any, annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    kind, _ = _KINDS.get(_plain(annotation), (object, ""))
    if isinstance(value, bool):  # a number to Python
        return kind in (bool, object)
    if isinstance(value, str):  # a sequence to Python
        return kind in (str, object) or (kind is Sequence and get_args(annotation) == (str,))  # of one name
    return isinstance(value, kind)


def _plain(annotation: Any) -> Any:
    return get_origin(annotation) or annotation
