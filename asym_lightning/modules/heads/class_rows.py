"""Rows of a predictions file: the class that is most likely and how likely each is, or a value."""

from __future__ import annotations

import math
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


def value_rows(values: Tensor, targets: Tensor | None = None) -> list[dict[str, Any]]:
    """Return the value of each sample as `label`, and as `target` what it should be, where that is known.

    Args:
        values: Values (batch,).
        targets: What they should be (batch,); NaN where that is not known.

    Example:
        >>> value_rows(torch.tensor([0.5, 1.0]), torch.tensor([0.25, math.nan]))
        [{'label': 0.5, 'target': 0.25}, {'label': 1.0}]
    """
    known = [math.nan] * len(values) if targets is None else targets.tolist()
    return [
        {"label": value, **({} if math.isnan(target) else {"target": target})}
        for value, target in zip(values.tolist(), known, strict=True)
    ]


def with_identifiers(rows: Sequence[dict[str, Any]], identifiers: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows that begin with an `id`, if there is one for each."""
    if len(identifiers) != len(rows):
        return list(rows)
    return [{"id": identifier, **row} for identifier, row in zip(identifiers, rows, strict=True)]
