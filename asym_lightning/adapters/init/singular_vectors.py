"""Singular vectors of a pretrained weight, for the inits V, V_last, U and U_last."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Relative to the largest eigenvalue of W^T W: directions whose squared singular values differ by more than this are
# told apart.
_TOLERANCE = 1e-9


def singular_vectors(weight: Tensor, rank: int, *, side: str, last: bool) -> Tensor:
    """Rows: the leading (or ``last``) singular vectors of a (d_out, d_in) weight, float64 on the CPU.

    ``side="V"`` gives rows of Vh (length d_in), ``side="U"`` columns of U (length d_out) as rows. Each vector's
    entry of largest modulus is positive, so the result does not depend on the LAPACK at hand.

    >>> W = torch.diag(torch.tensor([3.0, 1.0, 2.0]))
    >>> singular_vectors(W, 2, side="V", last=False).abs().argmax(dim=1).tolist()
    [0, 2]

    Source: Zhu et al. 2024, section 5. The released code takes columns of Vh, and of a weight that is not
    yet the pretrained one.
    """
    W = weight.detach().to("cpu", torch.float64)
    if side == "U":
        W = W.T
    vectors = torch.linalg.svd(W, full_matrices=False).Vh[-rank:] if last else _leading_right(W, rank)
    peak = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(peak < 0, -1.0, 1.0)


def _leading_right(W: Tensor, rank: int) -> Tensor:
    """Leading right singular vectors: by a block Krylov space where that converges, else by the full decomposition.

    Pretrained weights have a few large singular values, for which a space of some tens of dimensions is exact to
    rounding, at a hundredth of the cost of the decomposition.

    Source: Musco and Musco 2015, algorithm 2, with full orthogonalisation and a residual test.
    """
    d_in = W.shape[1]
    block = rank + 8
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(d_in, block, generator=generator, dtype=torch.float64)
    space, image = W.new_empty(d_in, 0), W.new_empty(W.shape[0], 0)
    next_test = 3 * block
    while space.shape[1] + block <= min(W.shape) // 2:
        # Twice is enough (Kahan): once leaves the rounding errors of nearly dependent directions.
        for _ in range(2):
            directions = directions - space @ (space.T @ directions)
        basis = torch.linalg.qr(directions).Q
        space, image = torch.cat([space, basis], dim=1), torch.cat([image, W @ basis], dim=1)
        directions = W.T @ image[:, -block:]
        if space.shape[1] < next_test:
            continue
        next_test = int(1.5 * space.shape[1])
        values, vectors = torch.linalg.eigh(image.T @ image)
        values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        ritz = space @ vectors
        residual = W.T @ (image @ vectors) - ritz * values
        if residual.norm(dim=0).max() <= _TOLERANCE * values[0]:
            return F.normalize(ritz, dim=0).T
    return torch.linalg.svd(W, full_matrices=False).Vh[:rank]
