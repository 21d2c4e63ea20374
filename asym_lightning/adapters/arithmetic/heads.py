"""Heads of adapters that are combined: points, not vectors, for where they started is in no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from asym_lightning.adapters.arithmetic.space import check_one_kind_of_heads
from asym_lightning.adapters.files.directory import SavedAdapter


def check_heads(adapters: Sequence[SavedAdapter], weights: Sequence[float], heads_of: int | None) -> None:
    """Check that :func:`with_heads` has an answer.

    Raises:
        ValueError: The heads differ in shape, or their weights add up to nothing, or there is no such adapter.
    """
    if heads_of is not None:
        if not 0 <= heads_of < len(adapters):
            raise ValueError(f"`heads_of` must be the number of an adapter, 0 to {len(adapters) - 1}, not {heads_of}.")
        return
    check_one_kind_of_heads(adapters)
    if adapters[0].others and abs(sum(weights)) < 1e-9:
        raise ValueError("The weights add up to zero, so there is no mean of the heads; take those of one: `heads_of`.")


def with_heads(
    adapter: SavedAdapter, adapters: Sequence[SavedAdapter], weights: Sequence[float], heads_of: int | None = None
) -> SavedAdapter:
    """An adapter with the mean of the heads, by weights that are made to add up to one, or with those of one adapter.

    So sums, differences and negations of adapters that start from one head keep its part once. Integers, such as counts
    of batches, are the first adapter's.

    Args:
        adapter: Made of the first of the adapters.
        adapters: What was read.
        weights: One each.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages.
    """
    if heads_of is None:
        shares = [weight / sum(weights) for weight in weights] if adapters[0].others else []
        return replace(adapter, others={name: _mean(name, adapters, shares) for name in adapters[0].others})
    owner = adapters[heads_of]
    config = adapter.config
    if config is not None and owner.config is not None:
        config = {**config, "heads": owner.config["heads"]}
    return replace(
        adapter,
        others=owner.others,
        keys={**adapter.keys, **owner.keys},
        config=config,
        peft_config={**adapter.peft_config, "modules_to_save": owner.peft_config.get("modules_to_save")},
    )


def _mean(name: str, adapters: Sequence[SavedAdapter], shares: Sequence[float]) -> Tensor:
    first = adapters[0].others[name]
    if len(adapters) == 1 or not first.is_floating_point():
        return first
    parts = [share * adapter.others[name].double() for share, adapter in zip(shares, adapters, strict=True)]
    return torch.stack(parts).sum(0).to(first.dtype)
