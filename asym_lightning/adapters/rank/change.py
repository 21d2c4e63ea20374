"""Changes of rank while training, and of the coordinates in which an update ``s B A`` is written.

For an invertible M the factors ``B M`` and ``M^-1 A`` are the same update. Shrinking takes the M that makes columns
of B orthogonal and sorted by singular value, and keeps the first k: the best rank-k approximation (Eckart-Young).
Growing adds pairs of which one half is zero, so the function does not change. The parameters stay the same objects,
written in place: rows and columns past the active rank are zero. Optimizer state follows, see :mod:`.optimizer_state`.

Which factor carries the singular values: B, while A's rows are orthonormal. Where B is the frozen factor it is the
other way round, so that the frozen factor keeps the scale that its learning rate was tuned for.

Source: Eckart and Young 1936.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.rand import orthonormal_rows
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.adapters.rank.groups import RankGroup
from asym_lightning.adapters.rank.optimizer_state import change_coordinates, open_columns
from asym_lightning.core.dtensor import edited, whole


def set_rank(group: RankGroup, rank: int, optimizers: Sequence[Optimizer] = (), *, step: int = 0) -> None:
    """Grow or shrink a group to ``rank``; at its present rank it does nothing.

    Args:
        group: What to change.
        rank: The new rank.
        optimizers: Those that may hold state of the factors; it follows.
        step: Step of training. New rows are drawn from (seed, layer, step), so every process draws the same.

    Raises:
        ValueError: ``rank`` is less than 1, or larger than what is allocated.
    """
    if not 1 <= rank <= group.max_rank:
        raise ValueError(
            f"`{group.name}` can't have rank {rank}: there is room for 1 to {group.max_rank}; allocate more with "
            "`max_rank`."
        )
    if rank < group.rank:
        shrink_rank(group, rank, optimizers)
    elif rank > group.rank:
        grow_rank(group, rank, optimizers, step=step)


@torch.no_grad()
def shrink_rank(group: RankGroup, rank: int, optimizers: Iterable[Optimizer] = ()) -> None:
    """Replace the update by its best approximation of a lower rank (all of it where that rank suffices).

    First moments follow exactly, second ones as :mod:`.optimizer_state` says.
    """
    basis = _decompose(group)
    U, S, Vh = basis.U[:, :rank], basis.S[:rank], basis.Vh[:rank]
    if group.frozen_is_B:
        into = _Change(basis.R_B.T @ U, torch.linalg.pinv(basis.R_B) @ U)
        factors = basis.Q_B @ U, S[:, None] * Vh @ basis.Q_A.T
    else:
        into = _Change(torch.linalg.pinv(basis.R_A) @ Vh.T, basis.R_A.T @ Vh.T)
        factors = basis.Q_B @ (U * S), Vh @ basis.Q_A.T
    _write(group, *factors, into, list(optimizers))


@torch.no_grad()
def orthonormalize(group: RankGroup, optimizers: Iterable[Optimizer] = (), *, factor: str = "A") -> None:
    """Make the rows of A (or the columns of B) orthonormal and put the rest into the other factor.

    With the QR decomposition ``A^T = Q R``, ``(B R^T)(Q^T)`` is the same update. A group that is one already is left as
    it is but for rounding.

    Args:
        group: What to change.
        optimizers: Those that may hold state of the factors; it follows.
        factor: ``"A"`` or ``"B"``.
    """
    basis = _decompose(group)
    if factor == "A":
        into = _Change(torch.linalg.pinv(basis.R_A), basis.R_A.T)
        factors = basis.Q_B @ basis.R_B @ basis.R_A.T, basis.Q_A.T
    else:
        into = _Change(basis.R_B.T, torch.linalg.pinv(basis.R_B))
        factors = basis.Q_B, basis.R_B @ basis.R_A.T @ basis.Q_A.T
    _write(group, *factors, into, list(optimizers))


@torch.no_grad()
def grow_rank(
    group: RankGroup,
    rank: int,
    optimizers: Iterable[Optimizer] = (),
    *,
    step: int = 0,
    directions: Tensor | None = None,
) -> None:
    """Add directions that change nothing yet: rows of A orthonormal to the present ones, and zero columns of B.

    * A that is still as its seed gave it grows into what its seed gives at the new rank, so it can still be redrawn.
    * Where A is trained and not orthonormal, the new rows are orthogonal to the present ones and as long as those are
      on average (root mean square), so that the new directions learn at the pace of the old.
    * Where B is the frozen factor, B gets such columns and A zero rows.

    New columns have no momentum, and a tenth of the old ones' mean second moment.

    Args:
        group: What to change.
        rank: The new rank.
        optimizers: Those that may hold state of the factors; it follows.
        step: Step of training, which the draw depends on.
        directions: At least as many rows as A gets new ones, the most important first, to be made orthogonal to the
            present rows; ``None`` draws them.
    """
    old, optimizers = group.rank, list(optimizers)
    if group.frozen_is_B:
        for adapter in group.adapters:
            generator = layer_generator(adapter.seed, f"{adapter.key}.B.grown.{step}")
            with edited(adapter.factor_B) as B:
                columns = _rows_beside(B[:, :old].to("cpu", torch.float64).T, rank - old, generator).T
                B[:, old:rank] = columns.to(B)
    else:
        first = group.adapters[0]
        rows = _seeded_rows(first, rank) if directions is None else _rows_of(directions, group.A)[: rank - old]
        if rows is None:
            generator = layer_generator(first.seed, f"{first.A_key}.A.grown.{step}")
            rows = _rows_beside(group.A, rank - old, generator)
        with edited(group.factor_A) as A:
            A[old:rank] = rows.to(A)
    for adapter in group.adapters:
        open_columns(optimizers, adapter.factor_B, columns_dim=1, rank=old, new_rank=rank)
        adapter.rank = rank
    open_columns(optimizers, group.factor_A, columns_dim=0, rank=old, new_rank=rank)


class _Basis(NamedTuple):
    """``B = Q_B R_B``, ``A^T = Q_A R_A`` and ``R_B R_A^T = U diag(S) Vh``, so ``B A = (Q_B U) diag(S) (Vh Q_A^T)``."""

    Q_B: Tensor
    R_B: Tensor
    Q_A: Tensor
    R_A: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor


class _Change(NamedTuple):
    """How gradients change coordinates: ``dB @ for_b`` and ``for_a^T @ dA`` are the new ones."""

    for_b: Tensor
    for_a: Tensor


def _decompose(group: RankGroup) -> _Basis:
    Q_B, R_B = _qr(group.B)
    Q_A, R_A = _qr(group.A.T)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.T)
    return _Basis(Q_B, R_B, Q_A, R_A, U, S, Vh)


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR with a positive diagonal, which makes it unique and leaves orthonormal columns as they are."""
    Q, R = torch.linalg.qr(matrix)
    signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
    return Q * signs, signs[:, None] * R


def _write(group: RankGroup, B: Tensor, A: Tensor, change: _Change, optimizers: list[Optimizer]) -> None:
    old, new = group.rank, A.shape[0]
    change_coordinates(optimizers, group.factor_A, change.for_a, columns_dim=0, rank=old)
    with edited(group.factor_A) as factor_A:
        factor_A.zero_()[:new] = A.to(factor_A)
    scaling = group.adapters[0].scaling
    blocks = B.split([adapter.d_out for adapter in group.adapters])
    for adapter, block in zip(group.adapters, blocks, strict=True):
        change_coordinates(optimizers, adapter.factor_B, change.for_b, columns_dim=1, rank=old)
        with edited(adapter.factor_B) as factor_B:
            factor_B.zero_()[:, :new] = (block * (scaling / adapter.scaling)).to(factor_B)
        adapter.rank = new


def _rows_beside(present: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, dim): orthogonal to the rows of ``present`` and to one another, as long as those are on average."""
    length = present.square().sum(dim=1).mean().sqrt()
    Q, _ = _qr(present.T)
    rows = orthonormal_rows(count, present.shape[1], generator, beside=Q.T)
    return rows * (length if length > 0 else 1)


def _rows_of(directions: Tensor, present: Tensor) -> Tensor:
    """Directions made orthogonal to the rows of ``present``, which are orthonormal, and orthonormal themselves."""
    rows = directions.to(present)
    # Twice is enough (Kahan): once leaves the rounding errors of directions that are nearly there already.
    for _ in range(2):
        rows = rows - rows @ present.T @ present
    return _qr(rows.T)[0].T


def _seeded_rows(adapter: LowRankAdapter, rank: int) -> Tensor | None:
    """The rows past the present ones that an A of ``rank`` has by its seed, if its first rows are those to the bit."""
    if not adapter.scheme.A.rule.grows_from_seed:
        return None
    rows = adapter.draw_A(rank=rank)
    present = whole(adapter.factor_A)[: adapter.rank]
    is_seeded = torch.equal(rows[: adapter.rank].to(present), present)
    return rows[adapter.rank :] if is_seeded else None
