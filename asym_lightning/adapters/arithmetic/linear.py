"""Sums of adapters that share A: ``sum w_i s B_i A = s (sum w_i B_i) A``, exactly.

Everywhere the backbone, A, rank, layers and heads have to be the same, which is checked; sums are formed in float64 and
rounded once. Every function returns a new adapter and changes none. Where adapters differ in ``alpha``, what is
returned has the first one's, and the others' B's are scaled to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asym_lightning.adapters.arithmetic.heads import check_heads, with_heads
from asym_lightning.adapters.arithmetic.space import check_one_space, scaling_ratio
from asym_lightning.adapters.files.directory import SavedAdapter


def weighted_sum(
    adapters: Sequence[SavedAdapter], weights: Sequence[float] | None = None, *, heads_of: int | None = None
) -> SavedAdapter:
    """The adapter whose update is ``sum_i w_i`` times those of the adapters.

    Args:
        adapters: What was read, with one A.
        weights: One each; ``None`` means ones.
        heads_of: Number of the adapter whose heads are taken. ``None`` averages them, with weights that are made to add
            up to one: heads are points, and where they started is in no file.

    Raises:
        ValueError: Adapters differ in backbone, layers, rank, A or heads, or the weights are not one each.

    Example:
        >>> import tempfile, torch
        >>> from asym_lightning.adapters import AdapterConfig, inject_adapters, read_adapter, save_adapters
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
        >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
        >>> _ = torch.nn.init.ones_(model[0].adapters["all"].factor_B)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_adapters(model, folder)
        ...     adapter = read_adapter(folder)
        >>> weighted_sum([adapter, adapter], [2, -0.5]).factors["0.lora_B"][0]
        tensor([1.5000, 1.5000])
    """
    weights = checked_weights(adapters, weights)
    check_one_space(adapters)
    check_heads(adapters, weights, heads_of)
    return with_Bs(
        adapters,
        {
            name: torch.stack(
                [
                    weight * scaled_B(adapters[0], adapter, name)
                    for weight, adapter in zip(weights, adapters, strict=True)
                ]
            ).sum(0)
            for name in B_names(adapters[0])
        },
        weights,
        heads_of,
    )


def mean(
    adapters: Sequence[SavedAdapter], weights: Sequence[float] | None = None, *, heads_of: int | None = None
) -> SavedAdapter:
    """The weighted mean; see :func:`weighted_sum`. Of runs that differ in their seeds alone it is their soup.

    Args:
        adapters: What was read, with one A.
        weights: One each, which are made to add up to one; ``None`` means equal ones.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages them.

    Raises:
        ValueError: As for :func:`weighted_sum`, or the weights add up to zero.
    """
    return weighted_sum(adapters, weights_of_mean(adapters, weights), heads_of=heads_of)


def negation(adapter: SavedAdapter) -> SavedAdapter:
    """The adapter that undoes what this one has learnt; its heads stay."""
    return weighted_sum([adapter], [-1.0])


def difference(adapter: SavedAdapter, start: SavedAdapter) -> SavedAdapter:
    """The task vector of an adapter that was trained on from another one, ``B - B_start``; the heads are its own.

    Of one that was trained from B zero it is the adapter itself.
    """
    return weighted_sum([adapter, start], [1.0, -1.0], heads_of=0)


def interpolation(first: SavedAdapter, second: SavedAdapter, share: float) -> SavedAdapter:
    """What is ``share`` of the way from the first adapter to the second: below 0 and above 1 it goes beyond them."""
    return weighted_sum([first, second], [1 - share, share])


def checked_weights(adapters: Sequence[SavedAdapter], weights: Sequence[float] | None) -> Sequence[float]:
    """The weights, or ones.

    Raises:
        ValueError: They are not one each.
    """
    if weights is None:
        return [1.0] * len(adapters)
    if len(weights) != len(adapters):
        raise ValueError(f"`weights` must be {len(adapters)}, one for each adapter, not {len(weights)}.")
    return weights


def weights_of_mean(adapters: Sequence[SavedAdapter], weights: Sequence[float] | None) -> Sequence[float]:
    """The weights, or ones, made to add up to one.

    Raises:
        ValueError: They are not one each, or add up to zero.
    """
    weights = checked_weights(adapters, weights)
    total = sum(weights)
    if weights and abs(total) < 1e-9:
        raise ValueError("`weights` of a mean must not add up to zero.")
    return [weight / total for weight in weights]


def B_names(adapter: SavedAdapter) -> list[str]:
    """The names of all B's."""
    return [f"{path}.lora_B" for path in adapter.paths]


def scaled_B(first: SavedAdapter, adapter: SavedAdapter, name: str) -> Tensor:
    """A B in float64, scaled to be one of the first adapter."""
    ratio = scaling_ratio(first, adapter, name.removesuffix(".lora_B"))
    return adapter.factors[name].double() * ratio


def with_Bs(
    adapters: Sequence[SavedAdapter],
    Bs: dict[str, Tensor],
    weights: Sequence[float],
    heads_of: int | None = None,
) -> SavedAdapter:
    """The first adapter with other B's, and with the heads of all."""
    first = adapters[0]
    rounded = {name: B.to(first.factors[name].dtype) for name, B in Bs.items()}
    return with_heads(replace(first, factors={**first.factors, **rounded}), adapters, weights, heads_of)
