"""Adapters that share A, combined entry by entry of B: trimmed, thinned at random, and where signs disagree, elected.

The entries are those of B, in the coordinates that A gives the inputs. What is no entry (zeros beside the blocks of a
fused layer, and all others that are zero already) is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from asym_lightning.adapters.arithmetic.heads import check_heads
from asym_lightning.adapters.arithmetic.linear import B_names, checked_weights, scaled_B, with_Bs
from asym_lightning.adapters.arithmetic.space import check_one_space
from asym_lightning.adapters.files.directory import SavedAdapter
from asym_lightning.adapters.init.generator import layer_generator


def trimmed(adapter: SavedAdapter, keep: float) -> SavedAdapter:
    """The adapter with the largest entries of its B's, by modulus over all layers, and zeros for the rest.

    Args:
        adapter: What was read.
        keep: Share of the entries that stay, in (0, 1].

    Raises:
        ValueError: ``keep`` is out of range.

    Source: Yadav et al. 2023 (TIES-Merging), section 4, step 1.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"`keep` must be in (0, 1], not {keep}.")
    names = B_names(adapter)
    entries = torch.cat([adapter.factors[name].double().flatten() for name in names])
    num_kept = round(keep * int(entries.count_nonzero()))
    chosen = torch.zeros(len(entries), dtype=torch.bool)
    chosen[entries.abs().topk(num_kept).indices] = True
    Bs = [adapter.factors[name] for name in names]
    masks = chosen.split([B.numel() for B in Bs])
    kept = {name: B * mask.view_as(B) for name, B, mask in zip(names, Bs, masks, strict=True)}
    return with_Bs([adapter], kept, [1.0])


def dropped(adapter: SavedAdapter, drop: float, *, seed: int = 0) -> SavedAdapter:
    """The adapter with entries of B dropped at random and the others scaled by ``1 / (1 - drop)``: in the mean, itself.

    Args:
        adapter: What was read.
        drop: Probability of a drop, in [0, 1).
        seed: Seed of the draw, beside the layer's name.

    Raises:
        ValueError: ``drop`` is out of range.

    Source: Yu et al. 2024 (DARE), equation 2.
    """
    if not 0 <= drop < 1:
        raise ValueError(f"`drop` must be in [0, 1), not {drop}.")
    Bs = {}
    for name in B_names(adapter):
        B = adapter.factors[name].double()
        is_kept = torch.rand(B.shape, generator=layer_generator(seed, f"{name}.drop"), dtype=torch.float64) >= drop
        Bs[name] = B * is_kept / (1 - drop)
    return with_Bs([adapter], Bs, [1.0])


def sign_election(
    adapters: Sequence[SavedAdapter], weights: Sequence[float] | None = None, *, heads_of: int | None = None
) -> SavedAdapter:
    """For each entry of B the sign of the weighted sum, and the weighted mean of those entries that have it.

    Args:
        adapters: What was read, with one A.
        weights: One each; ``None`` means equal ones.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages them.

    Raises:
        ValueError: As for `weighted_sum`, or a weight is not positive.

    Source: Yadav et al. 2023 (TIES-Merging), section 4, steps 2 and 3.
    """
    weights = checked_weights(adapters, weights)
    if any(weight <= 0 for weight in weights):
        raise ValueError("`weights` of an election must be positive.")
    check_one_space(adapters)
    check_heads(adapters, weights, heads_of)
    share = torch.tensor(weights, dtype=torch.float64)
    Bs = {}
    for name in B_names(adapters[0]):
        entries = torch.stack([scaled_B(adapters[0], adapter, name) for adapter in adapters])
        by_weight = entries * share.view(-1, *[1] * (entries.dim() - 1))
        agrees = (entries.sign() == by_weight.sum(0).sign()) & (entries != 0)
        total = (agrees * share.view(-1, *[1] * (entries.dim() - 1))).sum(0)
        Bs[name] = (by_weight * agrees).sum(0) / total.where(total > 0, 1)
    return with_Bs(adapters, Bs, weights, heads_of)
