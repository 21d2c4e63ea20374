"""Heads of adapters that are combined: points, not vectors, for where they started is in no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from asym_lightning.adapters.arithmetic.space import check_one_kind_of_heads
from asym_lightning.adapters.files.directory import SavedAdapter


def check_heads(adapters: Sequence[SavedAdapter], weights: Sequence[float], heads_of: int | None) -> None:
    """Check that :func:`combined_heads` has an answer.

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


def combined_heads(
    adapters: Sequence[SavedAdapter], weights: Sequence[float], heads_of: int | None = None
) -> Mapping[str, Tensor]:
    """The mean of the heads under the weights, made to add up to one, or the heads of one adapter.

    So sums, differences and negations of adapters that start from one head keep its part once. Integers, such as counts
    of batches, are the first adapter's.

    Args:
        adapters: What was read.
        weights: One each.
        heads_of: Number of the adapter whose heads are taken; ``None`` averages.
    """
    if heads_of is not None or len(adapters) == 1:
        return adapters[heads_of or 0].others
    total = sum(weights)
    return {
        name: sum(
            (weight / total * adapter.others[name].double() for weight, adapter in zip(weights, adapters, strict=True)),
        ).to(tensor.dtype)  # type: ignore[union-attr]
        if tensor.is_floating_point()
        else tensor
        for name, tensor in adapters[0].others.items()
    }
