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
        # Millions of rows are ordered in place, by numbers no larger than it takes: all there is in memory of them.
        order = random.permutation(np.arange(len(self), dtype=np.min_scalar_type(len(self))))
        stretch = BATCHES_SORTED_TOGETHER * self.batch_size
        for start in range(0, len(order), stretch):
            rows = order[start : start + stretch]
            rows[:] = rows[np.argsort(self.lengths[rows], kind="stable")]
        num_full = len(order) // self.batch_size
        batches = list(range(num_full))
        random.shuffle(batches)
        for number in [*batches, num_full]:  # what is left stays at the end: it would shift batches after it
            yield from order[number * self.batch_size : (number + 1) * self.batch_size].tolist()

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
