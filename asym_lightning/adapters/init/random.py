"""Random factors: orthonormal, or Kaiming uniform; :mod:`.singular_vectors` has those that the weight determines.

Every function returns rows: A is used as it is, B is the transpose of what is drawn for it.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def layer_generator(seed: int, key: str) -> torch.Generator:
    """A CPU generator that depends on the seed and on one factor's name only, so module order does not matter.

    >>> a = torch.rand(1, generator=layer_generator(0, "blocks.0.q.A"))
    >>> bool(a == torch.rand(1, generator=layer_generator(0, "blocks.0.q.A")))
    True
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


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


def kaiming_uniform_rows(rank: int, dim: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """``nn.Linear``'s default, Kaiming uniform with a = sqrt(5): uniform in +-1/sqrt(fan_in), float64."""
    bound = 1 / math.sqrt(fan_in)
    rows = [torch.rand(dim, generator=generator, dtype=torch.float64, device="cpu") for _ in range(rank)]
    return torch.stack(rows).mul_(2 * bound).sub_(bound)
