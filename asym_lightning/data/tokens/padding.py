"""Batches of rows of different lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

MULTIPLE = 8
"""Lengths are rounded up to this: tensor cores want multiples of 8, and compiled graphs few different shapes."""


@dataclass(frozen=True)
class PadBatch:
    """Collate rows into a batch: pad sequences on the right, stack numbers, list texts.

    Args:
        pad_values: What to pad each sequence field with. Those that are missing here are padded with 0.
        multiple: Round lengths up to a multiple of this.
        longest: Round no further than this, which is what the model allows; None means no limit.

    Example:
        >>> rows = [{"input_ids": np.array([5, 6, 7]), "labels": 1}, {"input_ids": np.array([8]), "labels": 0}]
        >>> batch = PadBatch({"input_ids": 9}, multiple=4)(rows)
        >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist()
        ([[5, 6, 7, 9], [8, 9, 9, 9]], [[1, 1, 1, 0], [1, 0, 0, 0]])
        >>> batch["labels"]
        tensor([1, 0])
    """

    pad_values: Mapping[str, int]
    multiple: int = MULTIPLE
    longest: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; `attention_mask` marks what is not padding of `input_ids`, whatever stands before both."""
        batch: dict[str, Any] = {}
        for name, first in rows[0].items():
            values = [row[name] for row in rows]
            if isinstance(first, np.ndarray):
                batch[name] = torch.from_numpy(self._padded(values, self.pad_values.get(name, 0)))
            elif isinstance(first, str):
                batch[name] = values
            else:
                batch[name] = torch.tensor(values)
        for name in [name for name in batch if name.endswith("input_ids")]:
            lengths = torch.tensor([len(row[name]) for row in rows])
            positions = torch.arange(batch[name].shape[1])
            batch[name.replace("input_ids", "attention_mask")] = (positions < lengths[:, None]).long()
        return batch

    def _padded(self, sequences: list[np.ndarray], value: int) -> np.ndarray:
        longest = max(map(len, sequences))
        width = -(-longest // self.multiple) * self.multiple
        if self.longest is not None:
            width = max(longest, min(width, self.longest))
        padded = np.full((len(sequences), width), value, dtype=np.int64)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        return padded
