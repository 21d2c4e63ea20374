"""The CPU's dropout kernels (``dropout.c``): what :mod:`.dropout_triton`, a room above, is for a GPU."""

from __future__ import annotations

import ctypes
import functools
import math

import numpy as np
import torch
from torch import Tensor

from asym_lightning.adapters.kernels.cpu.library import c_library
from asym_lightning.adapters.kernels.cpu.narrow_products import MAX_DOT_RANK, dot

NAME = "C"
LONGEST = 512
# Up to this rank the product back is faster here than torch's and then the drops, on two cores with AVX-512.
MAX_BACK_RANK = 64


class _Law(ctypes.Structure):
    """See ``dropout.c``."""

    _fields_ = [
        ("steps", ctypes.c_void_p),
        ("guide", ctypes.c_void_p),
        ("longest", ctypes.c_int64),
    ]


def drop_then_project(x: Tensor, A: Tensor, seed: int, p: float) -> Tensor:
    """``D(x) A^T``, (tokens, r): the product with all of x, less what the dropped entries added to it."""
    library, law = _library_and_law(p)
    x, A, A_transposed = x.contiguous(), A.contiguous(), A.T.contiguous()
    (num_tokens, width), rank = x.shape, A.shape[0]
    is_narrow = rank <= MAX_DOT_RANK
    h = x.new_empty(num_tokens, rank) if is_narrow else dot(x, A)
    library.drop_then_project(
        x.data_ptr(), A.data_ptr() if is_narrow else None, A_transposed.data_ptr(), h.data_ptr(), num_tokens, width,
        rank, law, seed, torch.get_num_threads(),
    )  # fmt: skip
    return h


def project_back_then_drop(h: Tensor, A: Tensor, seed: int, p: float) -> Tensor:
    """``D(h A)`` as a new (tokens, d_in) tensor, with the same entries dropped."""
    library, law = _library_and_law(p)
    rank, width = A.shape
    if rank > MAX_BACK_RANK:
        out = h @ A
        drop_(out, seed, p)
        return out
    h, A, out = h.contiguous(), A.contiguous(), h.new_empty(h.shape[0], width)
    library.project_back_then_drop(
        h.data_ptr(), A.data_ptr(), out.data_ptr(), h.shape[0], width, rank, law, seed, torch.get_num_threads()
    )
    return out


def drop_(x: Tensor, seed: int, p: float) -> None:
    """Zero the same entries of contiguous ``x`` (..., d_in) in place."""
    library, law = _library_and_law(p)
    width = x.shape[-1]
    library.drop(x.data_ptr(), x.element_size(), x.numel() // width, width, law, seed, torch.get_num_threads())


def take(A: Tensor) -> bool:
    """Whether the two products can be made with A: the kernels are for float32."""
    return A.dtype is torch.float32


def work_on(device: torch.device) -> bool:
    """Whether the kernels could be compiled."""
    return c_library() is not None


def _library_and_law(p: float) -> tuple[ctypes.CDLL, int]:
    """The kernels, and the address of what they have to know about the probability."""
    library = c_library()
    assert library is not None
    return library, ctypes.addressof(_law(p))


@functools.cache
def _law(p: float) -> _Law:
    steps, guide = _tables(p)
    return _Law(steps.ctypes.data, guide.ctypes.data, LONGEST)


@functools.cache
def _tables(p: float) -> tuple[np.ndarray, np.ndarray]:
    """The geometric distribution's steps and the guide into them."""
    at_most = -np.expm1(np.arange(1, LONGEST + 1) * math.log1p(-p))
    steps = np.append(np.floor(at_most * 2.0**32).astype(np.uint64), np.uint64(2**32))
    first_bits = np.arange(256, dtype=np.uint64) << np.uint64(24)
    return steps, np.searchsorted(steps, first_bits, side="right").astype(np.uint16)
