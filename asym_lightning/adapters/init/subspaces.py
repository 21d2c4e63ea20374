"""Directions that an A may be made of: leading ones, whitened ones.

Every function returns rows in float64 on the CPU, the most important first. A direction's sign is arbitrary, so the
entry of largest modulus is made positive.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from asym_lightning.adapters.init.rand import orthonormal_rows
from asym_lightning.adapters.init.rule import Draw

# The dense decomposition of a matrix with this short side takes a quarter of a second.
_LARGEST_DENSE = 1024
_NUM_POWER_ITERATIONS = 8
_OVERSAMPLING = 16
# Directions below this share of the largest singular value are rounding errors.
_SMALLEST = 1e-7


def whitened_gradient_directions(gradients: Tensor, inputs: Tensor, rank: int, *, damping: float = 1e-3) -> Tensor:
    """``A = V_r^T S^(-1/2)``, scaled to Frobenius norm sqrt(rank): `A x` is white, the rows are not orthonormal.

    V_r holds the leading eigenvectors of `S^(-1/2) (sum_b G_b^T G_b) S^(-1/2)`. For a target update D the best B leaves
    `||D S^(1/2) (I - P)||^2`, with P the projection on the rows of `A S^(1/2)` (Theorem 4.3; see
    `analysis.least_squares.optimal_B`). So the best A spans the leading right singular vectors of `D S^(1/2)`, mapped
    back by `S^(-1/2)`. With D the preconditioned descent direction `G S^(-1)`, summed over batches, that is this A.

    Any root of S gives the same A. The Cholesky factor `S = L L^T` costs a tenth of the symmetric root: with Q the
    orthogonal matrix for which `L^(-1) = Q S^(-1/2)`, the eigenvectors turn to `Q V`, and `(Q V)^T L^(-1)` is A again.

    Args:
        gradients: (k, d_in), the G_b one above the other, or other rows with the same Gram matrix.
        inputs: S (d_in, d_in), the second moment of the inputs.
        rank: Number of rows.
        damping: Added to S, times its mean eigenvalue: directions in which inputs hardly vary are told apart by noise.

    Example:
        >>> S = torch.diag(torch.tensor([4.0, 1.0, 0.25]))
        >>> G = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # whitened: 1.5, 2 and 2
        >>> A = whitened_gradient_directions(G, S, rank=2, damping=0.0)
        >>> bool(A[:, 0].abs().max() < 1e-6)  # what stands out for its size alone is left out
        True
    """
    L = damped_root(inputs, damping)
    whitened = torch.linalg.solve_triangular(L, _double(gradients).T, upper=False).T
    rows = torch.linalg.solve_triangular(L, leading_directions(whitened, rank), upper=False, left=False)
    return _signed(rows * (math.sqrt(len(rows)) / rows.norm()))


def damped_root(inputs: Tensor, damping: float) -> Tensor:
    """The Cholesky factor L of ``S + damping * Tr(S) / d_in * I``, lower triangular."""
    S = _double(inputs)
    mean = S.diagonal().mean()
    return torch.linalg.cholesky(S + torch.eye(len(S), dtype=S.dtype) * (damping * mean))


def orthonormalized(rows: Tensor) -> Tensor:
    """Orthonormal rows of which the first k span what the first k given ones span, for every k."""
    return _signed(torch.linalg.qr(rows.T).Q.T)


def completed(rows: Tensor, draw: Draw) -> Tensor:
    """As many orthonormal rows as were asked for: random ones beside the given ones where these are fewer."""
    missing = draw.rank - len(rows)
    if not missing:
        return rows
    return torch.cat([rows, orthonormal_rows(missing, draw.dim, draw.generator, beside=rows)])


def directions_beside(taken: Tensor) -> Tensor:
    """(d - m, d) orthonormal rows: all directions to which the (m, d) orthonormal rows that are taken are orthogonal.

    >>> directions_beside(torch.tensor([[0.0, 1.0, 0.0]])).abs().sum(dim=0)
    tensor([1., 0., 1.], dtype=torch.float64)
    """
    return _signed(torch.linalg.qr(_double(taken).T, mode="complete").Q[:, len(taken) :].T)


def directions_to_keep(inputs: Tensor, taken: Tensor, share: float) -> Tensor:
    """As few directions as hold, with those that are taken, a share of ``E ||x||^2``: orthonormal rows beside those.

    >>> S = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    >>> directions_to_keep(S, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), share=0.85).abs().argmax(dim=1)
    tensor([0, 2])

    Args:
        inputs: S (d, d), the second moment of x.
        taken: (m, d) orthonormal rows.
        share: Between 0 and 1.

    Source: Saha et al. 2021 (Gradient Projection Memory, arXiv 2103.09762), equations 8 and 9, with S in place of
    samples.
    """
    S, Q = _double(inputs), directions_beside(taken)
    beside = Q @ S @ Q.T
    missing = share * S.trace() - (S.trace() - beside.trace())
    values, vectors = torch.linalg.eigh(beside)
    held = torch.cat([values.new_zeros(1), values.flip(0).clamp_min(0).cumsum(0)])
    num_rows = min(int((held < missing).sum()), len(values))
    return _signed(vectors.flip(1)[:, :num_rows].T @ Q)


def leading_directions(matrix: Tensor, rank: int) -> Tensor:
    """The leading right singular vectors of a (k, d) matrix, as rows; fewer than ``rank`` if it has not so many.

    From the smaller Gram matrix where that is quickly decomposed, else by randomised power iterations with a fixed
    seed, which are as good as exact where singular values fall off.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4.

    Example:
        >>> leading_directions(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2).abs().argmax(dim=1)
        tensor([1, 2])
    """
    M = _double(matrix)
    if M.shape[1] <= min(M.shape[0], _LARGEST_DENSE):
        values, vectors = torch.linalg.eigh(M.T @ M)
    else:
        if M.shape[0] > _LARGEST_DENSE:
            M = _range_finder(M, rank) @ M
        values, vectors = torch.linalg.eigh(M @ M.T)
        vectors = M.T @ vectors
    leading = values.flip(0)[:rank]
    num_found = int((leading > values[-1].clamp_min(0) * _SMALLEST**2).sum())
    return orthonormalized(vectors.flip(1)[:, :num_found].T)


def _range_finder(M: Tensor, rank: int) -> Tensor:
    """(rank + some, k) orthonormal rows that span nearly all that the leading left singular vectors span."""
    block = min(rank + _OVERSAMPLING, *M.shape)
    start = torch.randn(M.shape[1], block, generator=torch.Generator().manual_seed(0), dtype=M.dtype)
    Q = torch.linalg.qr(M @ start).Q
    for _ in range(_NUM_POWER_ITERATIONS):
        Q = torch.linalg.qr(M @ torch.linalg.qr(M.T @ Q).Q).Q
    return Q.T


def _double(matrix: Tensor) -> Tensor:
    return matrix.detach().to("cpu", torch.float64)


def _signed(rows: Tensor) -> Tensor:
    if not len(rows):
        return rows
    peak = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * torch.where(peak < 0, -1.0, 1.0)
