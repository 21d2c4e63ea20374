"""Rows of a predictions file: the class that is most likely, and how likely each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def class_rows(probabilities: Tensor, names: Sequence[str], targets: Tensor | None = None) -> list[dict[str, Any]]:
    """Return `label` and `probability_<class>` of each sample, and `target`, what it should be, where it is known.

    Args:
        probabilities: Of each class (batch, classes).
        names: Names of the classes.
        targets: Numbers of the classes that the samples are of (batch,); negative where that is not known.

    Example:
        >>> import torch
        >>> class_rows(torch.tensor([[0.25, 0.75]]), ["no", "yes"], torch.tensor([0]))
        [{'label': 'yes', 'target': 'no', 'probability_no': 0.25, 'probability_yes': 0.75}]
    """
    if targets is None or targets.is_floating_point():  # which are no numbers of classes
        targets = torch.full((len(probabilities),), -1)
    return [
        {
            "label": names[number],
            **({"target": names[target]} if 0 <= target < len(names) else {}),
            **{f"probability_{n}": p for n, p in zip(names, row, strict=True)},
        }
        for number, target, row in zip(
            probabilities.argmax(dim=-1).tolist(), targets.tolist(), probabilities.float().tolist(), strict=True
        )
    ]


def with_identifiers(rows: Sequence[dict[str, Any]], identifiers: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows that begin with an `id`, if there is one for each."""
    if len(identifiers) != len(rows):
        return list(rows)
    return [{"id": identifier, **row} for identifier, row in zip(identifiers, rows, strict=True)]
