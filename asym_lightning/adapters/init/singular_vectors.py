"""Singular vectors of a pretrained weight, for the inits V, V_last, U and U_last."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.init.rule import Draw, InitRule, Letter, register_init

# Relative to the largest eigenvalue of W^T W: directions whose squared singular values differ by more than this are
# told apart.
_TOLERANCE = 1e-9


class SingularVectors(InitRule):
    """Singular vectors of the pretrained weight: right ones (V) for A, left ones (U) for B; leading, or last.

    Args:
        letter: The factor that may start so.
        last: Take those of the smallest singular values.

    Source: Zhu et al. 2024, section 5.
    """

    needs_weight = True
    is_orthonormal = True

    def __init__(self, letter: Letter, *, last: bool = False) -> None:
        self.side = "V" if letter == "A" else "U"
        self.name = f"{self.side}_last" if last else self.side
        self.factors = letter
        self.last = last
        self.nests = not last

    def rows(self, draw: Draw) -> Tensor:
        """Singular vectors, float64."""
        assert draw.weight is not None
        return singular_vectors(draw.weight, draw.rank, side=self.side, last=self.last)


for _letter in ("A", "B"):
    for _last in (False, True):
        register_init(SingularVectors(_letter, last=_last))


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
