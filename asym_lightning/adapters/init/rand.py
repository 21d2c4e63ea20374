"""Random orthonormal rows, the frozen A of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init


@register_init
class RandomOrthonormal(InitRule):
    """Orthonormal rows, uniformly distributed; see :func:`orthonormal_rows`.

    Source: Zhu et al. 2024, section 5.
    """

    name = "rand"
    factors = "AB"
    nests = True
    is_orthonormal = True

    def rows(self, draw: Draw) -> Tensor:
        """Orthonormal rows, float64."""
        return orthonormal_rows(draw.rank, draw.dim, draw.generator)


def orthonormal_rows(rank: int, dim: int, generator: torch.Generator, *, beside: Tensor | None = None) -> Tensor:
    """Draw ``rank`` orthonormal rows of length ``dim``, uniformly (Haar) distributed, float64.

    The first k rows are the same whatever ``rank`` is, so a factor may be allocated larger than it is used.

    Args:
        rank: Number of rows.
        dim: Length of a row, at least ``rank`` (plus the rows ``beside``).
        generator: Source of the Gaussian that is orthogonalised.
        beside: (k, dim) orthonormal rows to which the new ones shall be orthogonal too.

    Source: Mezzadri 2007, section 5 (QR of a Gaussian with the signs of R's diagonal). The released code takes the
    SVD of uniform noise, which is orthonormal but not Haar and cubic in ``dim``.
    """
    # Row by row: a single (rank, dim) draw is not prefix-stable where dim is no multiple of the vector width.
    rows = [torch.randn(dim, generator=generator, dtype=torch.float64, device="cpu") for _ in range(rank)]
    columns = torch.stack(rows, dim=1)
    if beside is not None:
        columns = torch.cat([beside.to(columns).T, columns], dim=1)
    Q, R = torch.linalg.qr(columns)
    signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
    return (Q * signs).T[-rank:].contiguous()
