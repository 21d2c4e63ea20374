"""The CPU's dropout kernels (``dropout_cpu.c``): what :mod:`asym_lightning.adapters.dropout_triton` is for a GPU."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import torch
from torch import Tensor

from asym_lightning.adapters.c_library import c_library
from asym_lightning.adapters.narrow_products import dot

LONGEST = 512


class _Law(ctypes.Structure):
    """See ``dropout_cpu.c``."""

    _fields_ = [
        ("steps", ctypes.c_void_p),
        ("guide", ctypes.c_void_p),
        ("longest", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
    ]


def drop_then_project(x: Tensor, A: Tensor, seed: int, p: float) -> Tensor:
    """``D(x) A^T``, (tokens, r): the product with all of x, less what the dropped entries added to it."""
    x = x.contiguous()
    h, A_transposed = dot(x, A), A.T.contiguous()
    _call("subtract_dropped", x, A_transposed, h, *x.shape, len(A), seed=seed, p=p)
    return h


def drop_(x: Tensor, seed: int, p: float) -> None:
    """Zero the same entries of contiguous ``x`` (..., d_in) in place."""
    width = x.shape[-1]
    _call("drop", x, x.element_size(), x.numel() // width, width, seed=seed, p=p)


def take(A: Tensor) -> bool:
    """Whether the first product can be made by subtraction: in half precision it would round twice."""
    return A.dtype == torch.float32


def work_on(device: torch.device) -> bool:
    """Whether the kernels could be compiled."""
    return c_library() is not None


def _call(name: str, *arguments: Tensor | int, seed: int, p: float) -> None:
    library = c_library()
    assert library is not None
    steps, guide = _tables(p)
    law = _Law(steps.ctypes.data, guide.ctypes.data, LONGEST, seed)
    numbers = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(library, name)(*numbers, ctypes.byref(law), torch.get_num_threads())


@functools.cache
def _tables(p: float) -> tuple[np.ndarray, np.ndarray]:
    """The geometric distribution's steps and the guide into them."""
    at_most = -np.expm1(np.arange(1, LONGEST + 1) * math.log1p(-p))
    steps = np.append(np.floor(at_most * 2.0**32).astype(np.uint64), np.uint64(2**32))
    first_bits = np.arange(256, dtype=np.uint64) << np.uint64(24)
    return steps, np.searchsorted(steps, first_bits, side="right").astype(np.uint16)
