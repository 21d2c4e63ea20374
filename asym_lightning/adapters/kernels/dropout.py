"""Dropout on the adapter's input that keeps neither the dropped input nor a mask for the backward pass.

A forward pass draws one seed; forward and backward each redraw the same dropped entries from it. Kernels do that where
they can be compiled: on a GPU by Triton (:mod:`.dropout_triton`), on a CPU by a C compiler (:mod:`.cpu.dropout`).
Elsewhere torch draws the entries. All have the same distribution; the same seed drops other entries in each.
"""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from asym_lightning.adapters.kernels.switch import kernels_are_wanted


def draw_seed() -> Tensor:
    """One int64 on the CPU from torch's global generator: seeded, resumable, and replayed by gradient checkpointing."""
    return torch.randint(0, 2**62, ())


def drop_then_project(x: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    """``D(x) A^T``, where D zeroes each entry with probability ``p`` and does *not* rescale the rest.

    Args:
        x: (tokens, d_in), any strides.
        A: (r, d_in) in x's dtype.
        seed: The same seed drops the same entries of every (tokens, d_in) matrix, here and below.
        p: Probability of a drop.

    Returns:
        (tokens, r).
    """
    return (_drop_then_project_operator if _is_traced(x) else _drop_then_project)(x, A, seed, p)


def project_back_then_drop(h: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    """``D(h A)``: (tokens, r) times (r, d_in), as a new (tokens, d_in) tensor."""
    return (_project_back_then_drop_operator if _is_traced(h) else _project_back_then_drop)(h, A, seed, p)


def dropped_copy(x: Tensor, seed: Tensor, p: float) -> Tensor:
    """``D(x)`` as a new contiguous tensor."""
    dropped = x.clone(memory_format=torch.contiguous_format)
    drop_(dropped, seed, p)
    return dropped


def drop_(x: Tensor, seed: Tensor, p: float) -> None:
    """``D(x)`` in place, for contiguous ``x`` (..., d_in).

    >>> x, y = torch.ones(1000), torch.ones(1000)
    >>> drop_(x, torch.tensor(3), 0.1)
    >>> drop_(y, torch.tensor(3), 0.1)
    >>> torch.equal(x, y)
    True
    """
    (_drop_operator if _is_traced(x) else _drop)(x, seed, p)


def _is_traced(x: Tensor) -> bool:
    """Whether a registered operator is needed, of which others see no more than its result's shape.

    It hides sizes that depend on data from torch.compile and from fake tensors, whose seed can't be read. Ordinary
    calls skip its dispatch.
    """
    return torch.compiler.is_compiling() or type(x) is not Tensor


def _drop_then_project(x: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    kernels = _kernels(x.device)
    if kernels is None or not kernels.take(A):
        return dropped_copy(x, seed, p) @ A.T
    return kernels.drop_then_project(x, A, int(seed), p)


def _project_back_then_drop(h: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    kernels = _kernels(h.device)
    if kernels is None or not kernels.take(A):
        out = h @ A
        drop_(out, seed, p)
        return out
    return kernels.project_back_then_drop(h, A, int(seed), p)


def _drop(x: Tensor, seed: Tensor, p: float) -> None:
    if (kernels := _kernels(x.device)) is not None:
        kernels.drop_(x, int(seed), p)
        return
    generator = torch.Generator(x.device).manual_seed(int(seed))
    if x.device.type == "cpu":
        # From drop to drop, which takes a small part of a mask's random numbers, and a sixth of its time at p = 0.05.
        # There are at least mean + 10 standard deviations: 0.1 n p + 251 >= 10 sqrt(n p) for every n.
        steps = torch.empty(int(1.1 * p * x.numel()) + 251, dtype=torch.int64).geometric_(p, generator=generator)
        places = steps.cumsum_(0).sub_(1)
        x.view(-1).index_fill_(0, places[: torch.searchsorted(places, x.numel())], 0.0)
    else:
        x.masked_fill_(torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(p, generator=generator), 0.0)


def implementation(device: torch.device) -> str:
    """What draws the entries on a device: `C`, `Triton` or `torch`; builds kernels that have not been built yet."""
    kernels = _kernels(device)
    return "torch" if kernels is None else kernels.NAME


@functools.cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The compiled kernels where they work on a device, else ``None``."""
    kernels: ModuleType
    if not kernels_are_wanted():
        return None
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from asym_lightning.adapters.kernels import dropout_triton as kernels
    elif device.type == "cpu":
        from asym_lightning.adapters.kernels.cpu import dropout as kernels
    else:
        return None
    return kernels if kernels.work_on(device) else None


@torch.library.custom_op("asym_lightning::drop_", mutates_args=("x",))
def _drop_operator(x: Tensor, seed: Tensor, p: float) -> None:
    _drop(x, seed, p)


@_drop_operator.register_fake
def _(x: Tensor, seed: Tensor, p: float) -> None:
    return None


@torch.library.custom_op("asym_lightning::drop_then_project", mutates_args=())
def _drop_then_project_operator(x: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    return _drop_then_project(x, A, seed, p)


@_drop_then_project_operator.register_fake
def _(x: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    return x.new_empty(x.shape[0], A.shape[0])  # `len` would be a number for good


@torch.library.custom_op("asym_lightning::project_back_then_drop", mutates_args=())
def _project_back_then_drop_operator(h: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    return _project_back_then_drop(h, A, seed, p)


@_project_back_then_drop_operator.register_fake
def _(h: Tensor, A: Tensor, seed: Tensor, p: float) -> Tensor:
    return h.new_empty(h.shape[0], A.shape[1])
