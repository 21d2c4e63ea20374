"""How a factor starts: random orthonormal, singular vectors of the pretrained weight, Kaiming uniform, or zero.

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


def singular_vectors(weight: Tensor, rank: int, *, side: str, last: bool) -> Tensor:
    """Rows: the leading (or ``last``) singular vectors of a (d_out, d_in) weight, float64 on the CPU.

    ``side="V"`` gives rows of Vh (length d_in), ``side="U"`` columns of U (length d_out) as rows. Each vector's
    entry of largest modulus is positive, so the result does not depend on the LAPACK at hand.

    Source: Zhu et al. 2024, section 5. The released code takes columns of Vh, and of a weight that is not
    yet the pretrained one.
    """
    W = weight.detach().to("cpu", torch.float64)
    if side == "U":
        W = W.T
    # Right singular vectors of W (d_out, d_in).
    vectors = _leading_right(W, rank) if not last else torch.linalg.svd(W, full_matrices=False).Vh[-rank:]
    peak = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(peak < 0, -1.0, 1.0)


def _leading_right(W: Tensor, rank: int) -> Tensor:
    """Leading right singular vectors as eigenvectors of the smaller Gram matrix, several times cheaper than an SVD.

    float64 squares the condition number harmlessly: leading vectors lose at most half of 16 digits.
    """
    d_out, d_in = W.shape
    if d_in <= d_out:
        eigenvectors = torch.linalg.eigh(W.T @ W).eigenvectors
        return eigenvectors.flip(1)[:, :rank].T.contiguous()
    eigenvalues, eigenvectors = torch.linalg.eigh(W @ W.T)
    if eigenvalues[-rank] <= eigenvalues[-1] * 1e-12:
        # Directions of (nearly) zero singular value can't be had by projection.
        return torch.linalg.svd(W, full_matrices=False).Vh[:rank]
    left = eigenvectors.flip(1)[:, :rank]
    return torch.nn.functional.normalize((left.T @ W), dim=1)
