"""Packing: short examples one after another in rows of full length, so that no computation goes to padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.tokens.tokenized_rows import TokenizedRows


def pack(lengths: Sequence[int] | npt.NDArray[Any], capacity: int) -> list[list[int]]:
    """Return rows of examples whose lengths add up to at most `capacity`: best fit, the longest first.

    Raises:
        ValueError: If an example is longer than `capacity`.

    Example:
        >>> pack([3, 5, 2, 6], capacity=8)
        [[3, 2], [1, 0]]
    """
    if len(lengths) and max(lengths) > capacity:
        raise ValueError(f"an example of {max(lengths)} tokens does not fit into packed rows of {capacity}.")
    packs: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(capacity + 1)]  # numbers of the packs that have so much left
    for example in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[example])
        space = next((space for space in range(length, capacity + 1) if with_space[space]), None)
        if space is None:
            number, space = len(packs), capacity
            packs.append([])
        else:
            number = with_space[space].pop()
        packs[number].append(example)
        with_space[space - length].append(number)
    return packs


class PackedRows(Dataset):
    """Rows of several examples each, with what tells them apart.

    Each row has the examples' `input_ids` and `labels` one after another, `position_ids` that start again at 0 with
    each, and `segment_ids`, 1 for the first and so on; 0 is left for padding. The first label of an example is
    -100 in any case: the token before it is another example's.

    Example:
        >>> from asym_lightning.data.tokens.tokenized_rows import Ragged
        >>> ids = Ragged.of([[5, 6], [7, 8, 9]])
        >>> row = PackedRows(TokenizedRows({"input_ids": ids, "labels": ids}), capacity=8)[0]
        >>> {name: values.tolist() for name, values in row.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'input_ids': [7, 8, 9, 5, 6], 'labels': [-100, 8, 9, -100, 6],
         'position_ids': [0, 1, 2, 0, 1], 'segment_ids': [1, 1, 1, 2, 2]}
    """

    def __init__(self, rows: TokenizedRows, capacity: int) -> None:
        self.rows = rows
        self.packs = pack(rows.lengths(), capacity)

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, number: int) -> dict[str, npt.NDArray[Any]]:
        examples = [self.rows[row] for row in self.packs[number]]
        lengths = [len(example["input_ids"]) for example in examples]
        labels = np.concatenate([example["labels"] for example in examples])
        labels[np.cumsum([0, *lengths[:-1]])] = IGNORED
        return {
            "input_ids": np.concatenate([example["input_ids"] for example in examples]),
            "labels": labels,
            "position_ids": np.concatenate([np.arange(length) for length in lengths]),
            "segment_ids": np.repeat(np.arange(1, len(lengths) + 1), lengths),
        }

    def lengths(self) -> npt.NDArray[Any]:
        """Return the length of every row."""
        lengths = self.rows.lengths()
        return np.array([lengths[pack].sum() for pack in self.packs])
