"""How alike two factors are: the paper's canonical-correlation goodness of fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cca_similarity(first: Tensor, second: Tensor, *, rtol: float | None = None) -> float:
    """Return how much the column spaces of two matrices have in common, in [0, 1].

    With orthonormal bases `Q1` and `Q2` of the column spaces, of dimensions r1 and r2, it is
    `||Q1^T Q2||_F^2 / min(r1, r2)`, the mean squared canonical correlation. 1 means that one space contains the other,
    0 that they are orthogonal, and unrelated spaces come out at `chance_similarity`. For adapters the columns are
    those of B (d_out, rank) and of the transposed A (d_in, rank). The measure does not change when B A is written as
    (B C)(C^-1 A), so it compares what the factors can express and not how they are written down.

    Args:
        first: Matrix (d, r1).
        second: Matrix (d, r2).
        rtol: Singular values below this share of the largest count as zero; None means `max(d, r)` times the machine
            epsilon of the matrix's dtype. Columns that are zero or repeat others add no dimension.

    Returns:
        The similarity; NaN if a matrix is zero, as a B is that was never trained: it has no column space.

    Raises:
        ValueError: If the matrices have different numbers of rows, or hold a value that is not finite.

    Example:
        >>> plane = torch.eye(4)[:, :2]
        >>> round(cca_similarity(plane, plane @ torch.tensor([[1.0, 2.0], [0.0, 3.0]])), 6)  # the same plane
        1.0
        >>> round(cca_similarity(plane, torch.eye(4)[:, 1:3]), 6)  # one direction of two in common
        0.5

    Source: Zhu et al. 2024, section 3 and Figure 1; the paper takes bases by SVD of full-rank factors.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(
            f"two matrices with one number of rows are needed, got shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}; are the adapters of different backbones?"
        )
    bases = [column_basis(matrix, rtol=rtol) for matrix in (first, second)]
    smaller = min(basis.shape[1] for basis in bases)
    if smaller == 0:
        return math.nan
    overlap = (bases[0].T @ bases[1]).square().sum().item() / smaller
    return min(overlap, 1.0)  # rounding may exceed 1 by some 1e-16


def column_basis(matrix: Tensor, *, rtol: float | None = None) -> Tensor:
    """Return an orthonormal basis (d, numerical rank) of a matrix's column space, in float64.

    By SVD and not by QR, whose Q has spurious directions where columns are zero or dependent.

    Args:
        matrix: Matrix (d, r).
        rtol: See `cca_similarity`.

    Raises:
        ValueError: If the matrix holds a value that is not finite.

    Example:
        >>> column_basis(torch.ones(4, 3)).shape
        torch.Size([4, 1])
    """
    if not torch.isfinite(matrix).all():
        raise ValueError("the matrix holds values that are not finite; did the run diverge?")
    if rtol is None:
        rtol = max(matrix.shape) * torch.finfo(matrix.dtype).eps
    U, S, _ = torch.linalg.svd(matrix.detach().to("cpu", torch.float64), full_matrices=False)
    is_kept = S.gt(rtol * S.max()) if len(S) else S.gt(0)
    return U[:, is_kept]


def chance_similarity(rank: int, dim: int, other_rank: int | None = None) -> float:
    """Return the expected `cca_similarity` of two independent, uniformly distributed subspaces.

    The expectation of `||Q1^T Q2||_F^2` is `r1 r2 / d`, hence `max(r1, r2) / d`.

    Args:
        rank: Dimension of the first subspace.
        dim: Dimension d of the space.
        other_rank: Dimension of the second; None means `rank`.

    Example:
        >>> chance_similarity(8, 1024)
        0.0078125
    """
    return max(rank, other_rank or rank) / dim
