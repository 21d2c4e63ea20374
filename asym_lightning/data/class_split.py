"""A random division of labelled samples in which each class has its share of every part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_by_class(
    labels: Sequence[int], names: Sequence[str], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[int]]:
    """Return the numbers of the samples in "train", "val" and "test", each in their order.

    Classes are divided one by one, each by itself: what is added to one leaves the others as they were divided. A part
    whose share is not 0 has a sample of each class at least.

    Args:
        labels: Number of the class of each sample.
        names: Names of the classes by number, for messages.
        val_fraction: Share of each class that is for validation; 0 for none.
        test_fraction: Share of each class that is for testing; 0 for none.
        seed: Seed of the choice.

    Raises:
        ValueError: If the shares leave nothing to train on, or a class has too few samples.

    Example:
        >>> parts = split_by_class([0] * 6 + [1] * 4, ["ant", "bee"], 0.25, 0.25, seed=0)
        >>> {name: len(numbers) for name, numbers in parts.items()}
        {'train': 4, 'val': 3, 'test': 3}
    """
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"`val_fraction` {val_fraction:g} and `test_fraction` {test_fraction:g} leave nothing to train on: their "
            "sum must be below 1."
        )
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for number, name in enumerate(names):
        members = np.flatnonzero(np.asarray(labels) == number)
        count = len(members)
        num_val, num_test = (max(1, round(share * count)) if share else 0 for share in (val_fraction, test_fraction))
        if count and num_val + num_test >= count:
            raise ValueError(
                f"the class {name} has {count} sample{'s' if count > 1 else ''}, too few to train on one and keep "
                f"{num_val} for validation and {num_test} for testing: add some, or set `val_fraction` or "
                "`test_fraction` to 0."
            )
        order = np.random.default_rng([seed, number]).permutation(members).tolist()
        parts["test"] += order[:num_test]
        parts["val"] += order[num_test : num_test + num_val]
        parts["train"] += order[num_test + num_val :]
    return {part: sorted(numbers) for part, numbers in parts.items()}
