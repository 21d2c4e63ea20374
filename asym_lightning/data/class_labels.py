"""Labels in a column of a table: which there are, and the number of each row's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asym_lightning.core.messages import not_one_of, shown
from asym_lightning.data.text_table import TextTable, is_cell, is_missing

UNLABELLED = -1
"""Label of a row that has none, as in the test sets of GLUE; scores are NaN there."""


def labels_in(table: TextTable, column: str) -> list[str]:
    """Return the labels of a column, sorted, by their value where all are numbers.

    Raises:
        ValueError: If there is no such column, or a cell holds something else than a label; the message says where.

    Example:
        >>> labels_in(TextTable("a.csv", {"label": ["10", "9", "", "10"]}), "label")
        ['9', '10']
    """
    cells = table.column(column)
    for row, cell in enumerate(cells):
        if not (is_missing(cell) or is_cell(cell)):
            raise ValueError(f"{table.where(row)}: there is no label, but {shown(cell)}.")
    labels = {str(label) for label in cells if not is_missing(label)} - {""}
    return sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)


def read_labels(
    table: TextTable, column: str | None, read: Callable[[Any], Any], nothing: Any = UNLABELLED, *, is_required: bool
) -> list[Any]:
    """Return what is read of each row's label.

    Args:
        table: The table.
        column: Column of the labels; None where there are none.
        read: Reads a cell.
        nothing: What stands for the label of a row that has none.
        is_required: Whether a row without a label is an error.

    Raises:
        ValueError: If there is no such column, or a label is wrong; the message says where.

    Example:
        >>> read_labels(TextTable("a.csv", {"label": ["b", ""]}), "label", class_reader(["a", "b"]), is_required=False)
        [1, -1]
    """
    if column is None or (column not in table.columns and not is_required):
        return [nothing] * len(table)
    labels = []
    for row, value in enumerate(table.column(column)):
        if value in (None, "", UNLABELLED, str(UNLABELLED)) and not is_required:
            labels.append(nothing)
            continue
        try:
            labels.append(read(value))
        except ValueError as error:
            raise ValueError(f"{table.where(row)}: {error}") from None
    return labels


def class_reader(names: Sequence[str]) -> Callable[[Any], int]:
    """Return the function from a cell, the name of a class or its number, to the number.

    Args:
        names: Names of the classes, by number.

    Example:
        >>> read = class_reader(["no", "yes"])
        >>> read("yes"), read(0)
        (1, 0)
    """
    numbers = {name: i for i, name in enumerate(names)}
    if not any(name.isdigit() for name in names):  # else "1" might be meant as a name and taken for a number
        numbers |= {str(i): i for i in range(len(names))}

    def read(value: Any) -> int:
        number = numbers.get(str(value)) if is_cell(value) and not is_missing(value) else None
        if number is None:
            known = [*names] if len(numbers) == len(names) else [*names, f"0 to {len(names) - 1}"]
            raise ValueError(not_one_of("the label", value, known))
        return number

    return read
