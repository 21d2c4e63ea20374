"""Where the rows of one slice lie in a fused weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a (d_out, d_in) weight that are one slice: ``groups`` equal blocks, in each ``size`` rows from ``start``.

    One group is a contiguous range (timm ``qkv``, GPT-2 ``c_attn``, Phi-3); several are the per-head interleaved
    layouts (GPT-NeoX, BLOOM, Falcon), where block = head and its q, k and v follow one another.

    >>> import torch
    >>> Rows(start=2, size=2).view(torch.arange(6)).tolist()
    [2, 3]
    >>> Rows(start=1, size=1, groups=3).view(torch.arange(6)).tolist()
    [[1], [3], [5]]
    """

    start: int
    size: int
    groups: int = 1

    @property
    def count(self) -> int:
        """Number of rows, the slice's d_out."""
        return self.groups * self.size

    def view(self, tensor: Tensor, dim: int = -1) -> Tensor:
        """The slice as a view: ``dim`` becomes (size) for one group, else (groups, size)."""
        if self.groups == 1:
            is_whole = self.size == tensor.shape[dim]
            return tensor if is_whole else tensor.narrow(dim, self.start, self.size)
        dim = dim % tensor.dim()
        return tensor.unflatten(dim, (self.groups, -1)).narrow(dim + 1, self.start, self.size)

    def take(self, tensor: Tensor, dim: int = -1) -> Tensor:
        """The slice with ``dim`` of length :attr:`count`; a copy where the rows are interleaved."""
        view = self.view(tensor, dim)
        if self.groups == 1:
            return view
        dim = dim % tensor.dim()
        return view.flatten(dim, dim + 1)

    def split(self, update: Tensor, dim: int = -1) -> Tensor:
        """Shape an update whose ``dim`` has length :attr:`count` so that it adds to :meth:`view`."""
        return update if self.groups == 1 else update.unflatten(dim, (self.groups, self.size))

    def plus(self, tensor: Tensor, update: Tensor, scaling: float) -> Tensor:
        """``tensor`` (..., d_out) with ``scaling`` times an update (..., :attr:`count`) in these rows, as a new tensor.

        Not in place: what is written into a view of a layer's output has a gradient that crashes with hooks on it.

        >>> import torch
        >>> Rows(start=1, size=1, groups=2).plus(torch.zeros(4), torch.ones(2), 3.0)
        tensor([0., 3., 0., 3.])
        """
        if self.groups == 1 and self.size == tensor.shape[-1]:
            return torch.add(tensor, update, alpha=scaling)
        blocks = tensor if self.groups == 1 else tensor.unflatten(-1, (self.groups, -1))
        added = torch.add(blocks.narrow(-1, self.start, self.size), self.split(update), alpha=scaling)
        written = torch.slice_scatter(blocks, added, -1, self.start, self.start + self.size)
        return written if self.groups == 1 else written.flatten(-2)
