"""Products ``L R^T`` of two matrices of few columns, measured without forming anything of the product's size.

All in float64, so that squaring in a Gram matrix costs none of float32's digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from asym_lightning.core.dtensor import Piece


@dataclass(frozen=True)
class Columns:
    """Matrices of few columns, whose rows processes may share out.

    Args:
        local: (..., rows that are here, columns) in float64.
        group: The processes that hold the other rows; None if there are none.
    """

    local: Tensor
    group: dist.ProcessGroup | None = None

    @classmethod
    def of(cls, matrix: Tensor) -> Columns:
        """A whole matrix (..., rows, columns)."""
        return cls(matrix.detach().to(exact_dtype(matrix)))

    def gram(self) -> Tensor:
        """(..., columns, columns): inner products of the columns (communicates)."""
        return Piece(self.local, self.group).summed(self.local.mT @ self.local)

    @cached_property
    def R(self) -> Tensor:
        """(..., at most columns, columns): R with ``R^T R`` the Gram matrix (communicates)."""
        if self.group is None:
            return torch.linalg.qr(self.local, mode="r").R
        values, vectors = torch.linalg.eigh(self.gram())
        return values.clamp_min(0).sqrt().unsqueeze(-1) * vectors.mT


def singular_values(left: Columns, right: Columns) -> Tensor:
    """Singular values of ``L R^T``, largest first: those of the product of both R factors.

    >>> _ = torch.manual_seed(0)
    >>> B, A = torch.randn(6, 2), torch.randn(2, 5)
    >>> dense = torch.linalg.svdvals((B @ A).double())
    >>> torch.allclose(singular_values(Columns.of(B), Columns.of(A.T)), dense[:2], rtol=1e-6)
    True
    """
    return torch.linalg.svdvals(left.R @ right.R.mT)


def exact_dtype(tensor: Tensor) -> torch.dtype:
    """float64, or float32 on devices that have no more."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
