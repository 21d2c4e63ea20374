"""Backward passes of which no second derivative is taken, and what says so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _NotTwice(torch.autograd.Function):
    """Gradients as they are, of which nobody may take a gradient."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, *grads: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(grad.detach() for grad in grads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        raise RuntimeError(
            "A gradient of a gradient goes through adapters, whose backward pass has none: set `path: plain` in the "
            "adapter's configuration, which has every derivative and is slower."
        )


def once_differentiable(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Like torch's `once_differentiable`, but what refuses a second derivative says what to do."""

    @functools.wraps(backward)
    def once(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        if not torch.is_grad_enabled():
            return backward(ctx, g)
        with torch.no_grad():
            grads = backward(ctx, g)
        source = next((t for t in (g, *ctx.saved_tensors) if t is not None and t.requires_grad), None)
        if source is None:
            return grads
        present = iter(_NotTwice.apply(source, *[grad for grad in grads if grad is not None]))
        return tuple(None if grad is None else next(present) for grad in grads)

    return once
