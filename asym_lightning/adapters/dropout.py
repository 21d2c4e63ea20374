"""Dropout on the adapter's input that keeps neither the dropped input nor a mask for the backward pass.

A forward pass draws one seed; forward and backward each redraw the same dropped entries from it. On the CPU the
entries are drawn as gaps between successive drops (geometric, the exact law of a Bernoulli process), so p = 0.05 costs
one random number for every 20 entries. Elsewhere a mask is drawn, used and let go.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_seed() -> Tensor:
    """One int64 on the CPU from torch's global generator: seeded, resumable, and replayed by gradient checkpointing."""
    return torch.randint(0, 2**62, ())


def drop(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """A copy of contiguous ``x`` with each entry zeroed with probability ``p``; the rest is *not* rescaled.

    >>> x = torch.ones(1000)
    >>> bool((drop(x, torch.tensor(3), 0.1) == drop(x, torch.tensor(3), 0.1)).all())
    True
    """
    # The registered operators hide data-dependent sizes from torch.compile; eager calls skip their dispatch.
    return _drop_operator(x, seed, p) if torch.compiler.is_compiling() else _drop(x, seed, p)


def add_low_rank_where_kept_(out: Tensor, h: Tensor, A: Tensor, seed: Tensor, p: float) -> None:
    """``out += h @ A`` except at the entries that :func:`drop` zeroes in a tensor of ``out``'s shape.

    Args:
        out: (tokens, d_in), contiguous.
        h: (tokens, rank).
        A: (rank, d_in).
        seed: What :func:`draw_seed` gave to the forward pass.
        p: Probability of a drop.
    """
    if torch.compiler.is_compiling():
        _add_operator(out, h, A, seed, p)
    else:
        _add_low_rank_where_kept_(out, h, A, seed, p)


def _drop(x: Tensor, seed: Tensor, p: float) -> Tensor:
    if x.device.type == "cpu":
        dropped = x.clone(memory_format=torch.contiguous_format)
        dropped.view(-1).index_fill_(0, _dropped_positions(x.numel(), seed, p), 0.0)
        return dropped
    return x.masked_fill(_dropped_mask(x, seed, p), 0.0)


def _add_low_rank_where_kept_(out: Tensor, h: Tensor, A: Tensor, seed: Tensor, p: float) -> None:
    if out.device.type == "cpu":
        # Saving and restoring the few dropped entries costs less than a second (tokens, d_in) tensor.
        entries = out.view(-1)
        positions = _dropped_positions(out.numel(), seed, p)
        before = entries.take(positions)
        out.addmm_(h, A)
        entries.index_copy_(0, positions, before)
    else:
        out.add_((h @ A).masked_fill_(_dropped_mask(out, seed, p), 0.0))


def _dropped_positions(num_entries: int, seed: Tensor, p: float) -> Tensor:
    """Sorted flat positions of the dropped entries among ``num_entries``."""
    # At least mean + 10 standard deviations: 0.1 n p + 251 >= 10 sqrt(n p) for every n.
    num_gaps = int(1.1 * p * num_entries) + 251
    generator = torch.Generator().manual_seed(int(seed))
    uniform = torch.rand(num_gaps, generator=generator).neg_().add_(1.0)  # in (0, 1], so the logarithm is finite
    gaps = uniform.log_().mul_(1 / math.log1p(-p)).floor_()
    positions = gaps.to(torch.int64).add_(1).cumsum_(0).sub_(1)
    return positions[: int(torch.searchsorted(positions, num_entries))]


def _dropped_mask(like: Tensor, seed: Tensor, p: float) -> Tensor:
    generator = torch.Generator(like.device).manual_seed(int(seed))
    return torch.empty(like.shape, dtype=torch.bool, device=like.device).bernoulli_(p, generator=generator)


@torch.library.custom_op("asym_lightning::drop", mutates_args=())
def _drop_operator(x: Tensor, seed: Tensor, p: float) -> Tensor:
    return _drop(x, seed, p)


@_drop_operator.register_fake
def _(x: Tensor, seed: Tensor, p: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("asym_lightning::add_low_rank_where_kept_", mutates_args=("out",))
def _add_operator(out: Tensor, h: Tensor, A: Tensor, seed: Tensor, p: float) -> None:
    _add_low_rank_where_kept_(out, h, A, seed, p)


@_add_operator.register_fake
def _(out: Tensor, h: Tensor, A: Tensor, seed: Tensor, p: float) -> None:
    return None
