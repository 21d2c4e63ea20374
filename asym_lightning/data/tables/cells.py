"""What a cell of a table says of a sample: its class, its classes or its score."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from asym_lightning.core.messages import not_one_of, shown
from asym_lightning.data.tables.text_table import TextTable, is_cell, is_missing

UNLABELLED = -1
"""Label of a row that has none, as in the test sets of GLUE; scores are NaN there."""
LARGEST_SCORE = 1e30
"""Beyond it the square of an error is no number any more."""


def class_reader(names: Sequence[str]) -> Callable[[Any], int]:
    """Return what tells a class's number from a cell, which holds its name or, where no name is one, its number.

    Example:
        >>> read = class_reader(["no", "yes"])
        >>> read("yes"), read(0)
        (1, 0)
        >>> read("yess")
        Traceback (most recent call last):
        ValueError: the label must be one of no, yes, 0 to 1, not 'yess': did you mean yes?
    """
    numbers = {name: i for i, name in enumerate(names)}
    if not any(name.isdigit() for name in names):  # else "1" might be meant as a name and taken for a number
        numbers |= {str(i): i for i in range(len(names))}

    def read(value: Any) -> int:
        number = numbers.get(str(value)) if is_cell(value) and not is_missing(value) else None
        if number is None:
            known = list(names) if len(numbers) == len(names) else [*names, f"0 to {len(names) - 1}"]
            raise ValueError(not_one_of("the label", value, known))
        return number

    return read


def as_score(value: Any, low: float = -LARGEST_SCORE, high: float = LARGEST_SCORE) -> float:
    """Return the number that a cell holds.

    Raises:
        ValueError: If it holds none, or one that is out of range.

    Example:
        >>> as_score("1.5")
        1.5
    """
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the score {shown(value)} is not a number.") from None
    if not low <= score <= high:
        raise ValueError(f"the score {score} is not in [{low}, {high}].")
    return score


def names_in(cell: Any, separator: str) -> list[str]:
    """Return the names of classes in a list, or in one cell in which a separator stands between them, each once.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> names_in("pets | home", "|"), names_in(["pets"], "|"), names_in("", "|")
        (['pets', 'home'], ['pets'], [])
    """
    if isinstance(cell, list) and all(isinstance(name, (str, int)) for name in cell):
        return list(dict.fromkeys(map(str, cell)))
    if isinstance(cell, str):
        return list(dict.fromkeys(name for part in cell.split(separator) if (name := part.strip())))
    raise ValueError(f"the classes must be a list or a text, not {shown(cell)}.")


def set_reader(names: Sequence[str], separator: str) -> Callable[[Any], list[int]]:
    """Return what tells the numbers of classes from a cell that holds a set of their names.

    Example:
        >>> set_reader(["home", "pets"], "|")("pets|home")
        [1, 0]
    """
    numbers = {name: number for number, name in enumerate(names)}

    def read(cell: Any) -> list[int]:
        found = names_in(cell, separator)
        for name in found:
            if name not in numbers:
                raise ValueError(not_one_of("the class", name, names))
        return [numbers[name] for name in found]

    return read


def class_names_in(table: TextTable, column: str) -> set[str]:
    """Return the names of the classes in a column.

    Raises:
        ValueError: If a cell holds something else.
    """
    return {label for label in table.read_cells(column, _name) if label}


def sorted_class_names(names: Collection[str], source: str, column: str, or_else: str = "") -> list[str]:
    """Return names of classes sorted: by their value where all are whole numbers.

    Args:
        names: The names that there are.
        source: What to call the data in messages.
        column: The column that has them.
        or_else: What a message proposes beside naming the classes.

    Raises:
        ValueError: If there are not two classes to tell apart.

    Example:
        >>> sorted_class_names({"10", "9"}, "a.csv", "label")
        ['9', '10']
    """
    if len(names) < 2:
        but = f"label but {next(iter(names))!r}" if names else "label"
        raise ValueError(f"{source} has no {but} under {column!r}: name all classes by `label_names`{or_else}.")
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def set_names_in(table: TextTable, column: str, separator: str) -> set[str]:
    """Return the names of the classes in a column of sets of classes.

    Raises:
        ValueError: If a cell holds no set.
    """
    return {name for names in table.read_cells(column, lambda cell: names_in(cell, separator)) for name in names}


def sorted_set_names(names: Collection[str], source: str, column: str) -> list[str]:
    """Return names of classes sorted.

    Args:
        names: The names that sets have.
        source: What to call the data in messages.
        column: The column that has the sets.

    Raises:
        ValueError: If there are none.
    """
    if not names:
        raise ValueError(f"{source} has no class under {column!r}: name all by `label_names`.")
    return sorted(names)


def _name(cell: Any) -> str:
    if not (is_missing(cell) or is_cell(cell)):
        raise ValueError(f"there is no label, but {shown(cell)}.")
    return "" if is_missing(cell) else str(cell)
