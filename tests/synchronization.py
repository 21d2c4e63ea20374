"""Operators that wait for a GPU until it has done all that it was given, found on a CPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# What has to know numbers to go on: it reads one, or the size of what it returns hangs on them.
_READING = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.allclose, aten.nonzero, aten.masked_select,
    aten._unique, aten._unique2, aten.unique_consecutive, aten.unique_dim, aten.bincount, aten.repeat_interleave,
}  # fmt: skip
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
_TO_PYTHON = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__, Tensor.item}
# transformers asks once a pass whether a batch has padding and whether pictures are as many as their places in the
# text, and matches boxes on the CPU; it can't be told.
_OF_HOSTS = (
    "transformers/masking_utils.py", "transformers/modeling_attn_mask_utils.py",
    "transformers/loss/loss_for_object_detection.py",
)  # fmt: skip
_FUNCTION_OF_HOSTS = "get_placeholder_mask"


class Synchronizations:
    """Refuse whatever would wait for a GPU if given tensors, and what is computed of them, were on one.

    Args:
        tensors: What lies on the device at first.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self._there: dict[int, Any] = {}  # storages by id, which they keep for as long as they are held
        self.add(tensors)
        self._modes = (_Functions(self), _Operators(self))
        self.num_operators = 0

    def add(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._there[id(storage)] = storage

    def are_there(self, values: Any) -> bool:
        return any(isinstance(t, Tensor) and id(t.untyped_storage()) in self._there for t in tree_leaves(values))

    def check(self, what: Any, values: Any) -> None:
        if self.are_there(values) and not _is_of_host():
            raise AssertionError(f"{what} would wait for a GPU")

    def __enter__(self) -> Synchronizations:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*args)
        self._there.clear()


class _Functions(TorchFunctionMode):
    """What copies numbers to Python without an operator."""

    def __init__(self, owner: Synchronizations) -> None:
        super().__init__()
        self._owner = owner

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _TO_PYTHON:
            self._owner.check(func, args)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, owner: Synchronizations) -> None:
        super().__init__()
        self._owner = owner

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._owner.num_operators += 1
        packet = func.overloadpacket
        masks = packet in _INDEXING and [t for t in args[1] if t is not None and t.dtype in (torch.bool, torch.uint8)]
        if packet in _READING or masks:
            self._owner.check(func, masks or (args, kwargs))
        out = func(*args, **kwargs)
        if self._owner.are_there((args, kwargs)):
            self._owner.add(tree_leaves(out))
        return out


def _is_of_host() -> bool:
    frames = inspect.stack(context=0)
    return any(f.filename.endswith(_OF_HOSTS) or f.function == _FUNCTION_OF_HOSTS for f in frames)
