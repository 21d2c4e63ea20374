"""Orders of rows in which the rows of a batch are about equally long, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

BATCHES_SORTED_TOGETHER = 50


class LengthBucketSampler(Sampler[int], Sized):
    """Random order for training: batches are random, the rows within a batch are about equally long.

    Each epoch shuffles the rows, sorts each stretch of 50 batches by length, and shuffles the batches. The order
    depends on `seed` and the epoch alone, so that a run that is resumed goes on as it would have.

    It orders rows and leaves the cutting to the data loader: Lightning can then share the rows out among
    processes, each of which still gets batches of like length.

    Args:
        lengths: Length of each row.
        batch_size: Rows in a batch.
        seed: Seed of the order.

    Example:
        >>> sampler = LengthBucketSampler([9, 1, 8, 2, 7, 3], batch_size=2)
        >>> order = list(sampler)
        >>> [sorted([9, 1, 8, 2, 7, 3][row] for row in order[i : i + 2]) for i in (0, 2, 4)]
        [[1, 2], [3, 7], [8, 9]]
    """

    is_permutation = True
    """Each row comes once an epoch, so another random order may take this one's place."""

    def __init__(self, lengths: npt.ArrayLike, batch_size: int, seed: int = 0) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1  # for loops other than Lightning's, which calls `set_epoch`
        order = random.permutation(len(self))
        stretch = BATCHES_SORTED_TOGETHER * self.batch_size
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), stretch):
            rows = order[start : start + stretch]
            rows = rows[np.argsort(self.lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # one at most; anywhere but at the end
        random.shuffle(full)  # type: ignore[arg-type]                       # it would shift those after it
        yield from (int(row) for batch in [*full, *rest] for row in batch)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch; Lightning calls it when an epoch starts."""
        self.epoch = epoch


class LongestFirstSampler(Sampler[int], Sized):
    """Fixed order for evaluation: by length, the longest first, so that too little memory shows at once.

    >>> list(LongestFirstSampler([2, 9, 5]))
    [1, 2, 0]
    """

    def __init__(self, lengths: npt.ArrayLike) -> None:
        self.order = np.argsort(-np.asarray(lengths), kind="stable")

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.order)  # one at a time: a list of numbers takes ten times their bytes
