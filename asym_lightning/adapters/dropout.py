"""Dropout on the adapter's input that keeps neither the dropped input nor a mask for the backward pass.

A forward pass draws one seed; forward and backward each redraw the same dropped entries from it. On the CPU the
entries are drawn as gaps between successive drops (geometric, the exact law of a Bernoulli process), so p = 0.05 costs
one random number for every 20 entries. Elsewhere a mask is drawn, used and let go.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

STEPS_AT_A_TIME = 32768


def draw_seed() -> Tensor:
    """One int64 on the CPU from torch's global generator: seeded, resumable, and replayed by gradient checkpointing."""
    return torch.randint(0, 2**62, ())


def drop_(x: Tensor, seed: Tensor, p: float) -> None:
    """Zero each entry of contiguous ``x`` with probability ``p``, in place; the rest is *not* rescaled.

    The same seed zeroes the same entries of every tensor of this shape.

    >>> x, y = torch.ones(1000), torch.ones(1000)
    >>> drop_(x, torch.tensor(3), 0.1)
    >>> drop_(y, torch.tensor(3), 0.1)
    >>> torch.equal(x, y)
    True
    """
    # The registered operator hides a data-dependent size from torch.compile, and from fake tensors, whose seed can't be
    # read; ordinary calls skip its dispatch.
    if torch.compiler.is_compiling() or type(x) is not Tensor:
        _drop_operator(x, seed, p)
    else:
        _drop(x, seed, p)


def _drop(x: Tensor, seed: Tensor, p: float) -> None:
    if x.device.type == "cpu":
        x.view(-1).index_fill_(0, _dropped_positions(x.numel(), seed, p), 0.0)
    else:
        generator = torch.Generator(x.device).manual_seed(int(seed))
        x.masked_fill_(torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(p, generator=generator), 0.0)


def _dropped_positions(num_entries: int, seed: Tensor, p: float) -> Tensor:
    """Sorted flat positions of the dropped entries among ``num_entries``."""
    # At least mean + 10 standard deviations: 0.1 n p + 251 >= 10 sqrt(n p) for every n.
    positions = np.empty(int(1.1 * p * num_entries) + 251, np.int64)
    # numpy's SFC64 gives random bits three times as fast as torch's generator, in a stream that numpy keeps stable.
    generator = np.random.SFC64(int(seed))
    last = -1
    # On one core and a cache's worth at a time: for this little arithmetic, waiting for a second core costs more.
    for start in range(0, len(positions), STEPS_AT_A_TIME):
        part = positions[start : start + STEPS_AT_A_TIME]
        steps = generator.random_raw(len(part) // 2 + 1).view(np.int32)[: len(part)].astype(np.float32)
        np.abs(steps, out=steps)
        steps += np.float32(0.5)
        steps *= np.float32(2**-31)  # uniform in (0, 1]
        np.log(steps, out=steps)
        steps *= np.float32(1 / math.log1p(-p))
        steps += np.float32(1)  # the next drop is one place beyond the gap
        part[:] = steps  # rounded down
        part[0] += last
        np.cumsum(part, out=part)
        last = part[-1]
    return torch.from_numpy(positions[: np.searchsorted(positions, num_entries)])


@torch.library.custom_op("asym_lightning::drop_", mutates_args=("x",))
def _drop_operator(x: Tensor, seed: Tensor, p: float) -> None:
    _drop(x, seed, p)


@_drop_operator.register_fake
def _(x: Tensor, seed: Tensor, p: float) -> None:
    return None
