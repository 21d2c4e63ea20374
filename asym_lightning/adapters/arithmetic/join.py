"""Weighted sums of adapters that do not share A, or not at one rank: exact at the sum of the ranks, or projected.

What is returned is a plain low-rank adapter, as `peft` would write it: its A is no seed's any more, and a fused layer
is adapted as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asym_lightning.adapters.arithmetic.heads import check_heads, with_heads
from asym_lightning.adapters.arithmetic.linear import checked_weights
from asym_lightning.adapters.arithmetic.space import check_one_model, scaling_of
from asym_lightning.adapters.files.directory import SavedAdapter

Pair = tuple[Tensor, Tensor]


def concatenation(
    adapters: Sequence[SavedAdapter], weights: Sequence[float] | None = None, *, heads_of: int | None = None
) -> SavedAdapter:
    """The weighted sum with all A's one above the other and all ``w_i s_i B_i`` side by side: exact, of their rank sum.

    Args:
        adapters: What was read, in full; A's and ranks may differ.
        weights: One each; ``None`` means ones.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages them.

    Raises:
        ValueError: Adapters differ in backbone, layers or heads, or one leaves out its A's.
    """
    return _joined(adapters, checked_weights(adapters, weights), heads_of, rank=None)


def projection(
    adapters: Sequence[SavedAdapter],
    rank: int | None = None,
    weights: Sequence[float] | None = None,
    *,
    heads_of: int | None = None,
) -> SavedAdapter:
    """The adapter of some rank that is nearest to the weighted sum in the Frobenius norm; A is orthonormal.

    From the singular values of ``R_B R_A^T``, where R are those of the QR decompositions of the factors side by side:
    as many columns as the ranks' sum, and nothing of size d_out x d_in.

    Args:
        adapters: What was read, in full; A's and ranks may differ.
        rank: Of every layer; ``None`` means that of the first adapter's layer.
        weights: One each; ``None`` means ones.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages them.

    Raises:
        ValueError: As for :func:`concatenation`, or ``rank`` is no rank.

    Source: Eckart and Young 1936.
    """
    if rank is not None and rank < 1:
        raise ValueError(f"`rank` must be at least 1, not {rank}.")
    return _joined(adapters, checked_weights(adapters, weights), heads_of, rank=rank or 0)


def nearest_of_rank(A: Tensor, B: Tensor, rank: int) -> Pair:
    """A (rank, d_in), orthonormal, and B (d_out, rank) with ``B A`` nearest to that of larger ones.

    >>> _ = torch.manual_seed(0)
    >>> A, B = torch.randn(3, 6).double(), torch.randn(5, 3).double()
    >>> left, values, right = torch.linalg.svd(B @ A)
    >>> nearest, factor = nearest_of_rank(A, B, 2)
    >>> torch.allclose(factor @ nearest, left[:, :2] * values[:2] @ right[:2])
    True
    """
    Q_A, R_A = torch.linalg.qr(A.T)
    Q_B, R_B = torch.linalg.qr(B)
    left, values, right = torch.linalg.svd(R_B @ R_A.T, full_matrices=False)
    rank = min(rank, len(values))
    return right[:rank] @ Q_A.T, Q_B @ left[:, :rank] * values[:rank]


def _joined(
    adapters: Sequence[SavedAdapter], weights: Sequence[float], heads_of: int | None, rank: int | None
) -> SavedAdapter:
    """The sum at the ranks' sum where `rank` is ``None``, and at that of the first adapter where it is 0."""
    check_one_model(adapters)
    for adapter in adapters:
        _check_is_plain(adapter)
    check_heads(adapters, weights, heads_of)
    first = adapters[0]
    pairs: dict[str, Pair] = {}
    for path in first.paths:
        A, B = _side_by_side(adapters, weights, path)
        if rank is not None:
            A, B = nearest_of_rank(A, B, rank or first.factors[f"{path}.lora_B"].shape[1])
        pairs[path] = A, B
    largest = max(len(A) for A, _ in pairs.values())
    factors = {
        name: tensor for path, pair in pairs.items() for name, tensor in _padded(first, path, pair, largest).items()
    }
    scaling_one = {"r": largest, "lora_alpha": largest, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    joined = replace(
        first,
        peft_config={**first.peft_config, **scaling_one},
        config=None,
        ranks={},
        scaling=None,
        factors=factors,
    )
    return with_heads(joined, adapters, weights, heads_of)


def _check_is_plain(adapter: SavedAdapter) -> None:
    if adapter.is_compact:
        raise ValueError(f"`{adapter.path}` leaves out its A's, which are to be joined: save it without `--compact`.")
    for path in adapter.paths:
        ranks = len(adapter.factors[f"{path}.lora_A"]), adapter.factors[f"{path}.lora_B"].shape[1]
        if ranks[0] != ranks[1] or adapter.peft_config.get("target_parameters"):
            raise ValueError(
                f"`{adapter.path}` adapts `{path}` by groups or by experts, whose factors can't be joined."
            )


def _side_by_side(adapters: Sequence[SavedAdapter], weights: Sequence[float], path: str) -> Pair:
    As = [adapter.factors[f"{path}.lora_A"].double().flatten(1) for adapter in adapters]
    Bs = [
        weight * scaling_of(adapter, path) * adapter.factors[f"{path}.lora_B"].double().flatten(1)
        for weight, adapter in zip(weights, adapters, strict=True)
    ]
    return torch.cat(As), torch.cat(Bs, dim=1)


def _padded(first: SavedAdapter, path: str, pair: Pair, rank: int) -> Mapping[str, Tensor]:
    """Both factors by name in the shapes that they had, of a rank that all layers have, as readers of one rank need."""
    names = f"{path}.lora_A", f"{path}.lora_B"
    missing = rank - len(pair[0])
    A = torch.nn.functional.pad(pair[0], (0, 0, 0, missing)).unflatten(1, first.factors[names[0]].shape[1:])
    B = torch.nn.functional.pad(pair[1], (0, missing))
    B = B.view(*B.shape, *first.factors[names[1]].shape[2:])
    return {name: factor.to(first.factors[name].dtype) for name, factor in zip(names, (A, B), strict=True)}
