"""Products with an A of which no two rows share an input: they choose inputs or add them up, and multiply nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class SparseRows(ABC):
    """What stands for A (rank, d_in) in its three products; of rows past the first few that are zero nothing is read.

    Attributes:
        rank: Rows of A.
    """

    rank: int

    def read(self, tokens: Tensor) -> Tensor:
        """``x A^T``, (tokens, rank), for x (tokens, d_in)."""
        h = self._read(tokens)
        missing = self.rank - h.shape[-1]
        return F.pad(h, (0, missing)) if missing else h

    @abstractmethod
    def _read(self, tokens: Tensor) -> Tensor:
        """Of the rows that are not zero."""

    @abstractmethod
    def add(self, base: Tensor, left: Tensor, out: Tensor) -> Tensor:
        """``out = base + left A``, for base (..., d_in) and left (..., rank); out may be base."""


@dataclass(frozen=True, eq=False)
class ChosenInputs(SparseRows):
    """Rows that are unit vectors, one an input.

    >>> A = ChosenInputs(rank=2, inputs=torch.tensor([2, 0]))
    >>> A.read(torch.tensor([[5.0, 6.0, 7.0]]))
    tensor([[7., 5.]])
    >>> A.add(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), out=torch.empty(1, 3))
    tensor([[2., 0., 1.]])
    """

    rank: int
    inputs: Tensor

    def _read(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.inputs)

    def add(self, base: Tensor, left: Tensor, out: Tensor) -> Tensor:
        """Add to the chosen columns."""
        return out.copy_(base).index_add_(-1, self.inputs, left[..., : len(self.inputs)])


@dataclass(frozen=True, eq=False)
class InputSums(SparseRows):
    """Row i adds up the i-th of equal blocks of inputs, and of what is left over the i-th input, times a number.

    >>> A = InputSums(rank=2, numbers=torch.tensor([0.5, 1.0]))
    >>> A.read(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[2., 2.]])
    >>> A.add(torch.zeros(1, 3), torch.tensor([[2.0, 7.0]]), out=torch.empty(1, 3))
    tensor([[1., 7., 1.]])
    """

    rank: int
    numbers: Tensor

    def _read(self, tokens: Tensor) -> Tensor:
        whole, rest = self._split(tokens)
        sums = whole.sum(-1)
        if rest.shape[-1]:
            sums[..., : rest.shape[-1]] += rest
        return sums.mul_(self.numbers.to(sums.dtype))

    def add(self, base: Tensor, left: Tensor, out: Tensor) -> Tensor:
        """Add one number to all columns of a block."""
        scaled = left[..., : len(self.numbers)] * self.numbers.to(left.dtype)
        (whole, rest), (whole_out, rest_out) = self._split(base), self._split(out)
        torch.add(whole, scaled.unsqueeze(-1), out=whole_out)
        if rest.shape[-1]:
            torch.add(rest, scaled[..., : rest.shape[-1]], out=rest_out)
        return out

    def _split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Views of the inputs by block, (..., blocks, size), and of those that are left over."""
        count = len(self.numbers)
        num_whole = inputs.shape[-1] // count * count
        return inputs[..., :num_whole].unflatten(-1, (count, -1)), inputs[..., num_whole:]
