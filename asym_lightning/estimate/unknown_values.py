"""Answers to questions about numbers that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from asym_lightning.core.private_names import (
    DataDependentOutputException,
    TorchDispatchMode,
    ctc_loss,
    ctc_loss_backward,
    index_put_impl_,
    local_scalar_dense,
)

aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, index_put_impl_)
_COMPARISONS = (aten.equal.default, aten.allclose.default)


class UnknownValues(TorchDispatchMode):
    """Let fake tensors go through code that looks at numbers: masks select everything, and what is asked is so.

    `logits[labels != -100]` keeps every position, which is the most that a batch can keep. Comparisons of whole tensors
    are true, and a number that is read is 1. Whether something is so of all numbers is answered with no: a mask that
    keeps all would be left out, and a batch with padding takes more. So is whether a number that is drawn is below
    another, or LayerDrop would leave out every layer. The loss of CTC, which has no form without numbers, has the
    shapes that it has with them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._draws: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._not_so: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, or answer for it."""
        kwargs = kwargs or {}
        if func in _INDEXING:
            args = (args[0], _without_masks(args[1]), *args[2:])
        elif func is ctc_loss:
            (steps, clips, _), longest = args[0].shape, max(args[3])
            return args[0].new_empty(clips), args[0].new_empty(clips, steps, 2 * longest + 1)
        elif func is ctc_loss_backward:
            return torch.empty_like(args[1])
        elif func in _COMPARISONS:
            return True
        elif func is aten.nonzero.default:
            return args[0].new_empty((args[0].numel(), args[0].dim()), dtype=torch.int64)
        elif func is aten.rand.default and not args[0]:
            draw = func(*args, **kwargs)
            self._draws[id(draw)] = draw
            return draw
        elif func is aten.all.default or (func is aten.lt.Scalar and id(args[0]) in self._draws):
            found = func(*args, **kwargs)
            self._not_so[id(found)] = found
            return found
        elif func is local_scalar_dense:
            try:
                return func(*args, **kwargs)
            except DataDependentOutputException:
                if id(args[0]) in self._not_so:
                    return False
                return 1.0 if args[0].dtype.is_floating_point else 1
        return func(*args, **kwargs)


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Each truth value's mask as the positions that it would give if it were true everywhere."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            found += [index.new_empty(index.numel(), dtype=torch.int64) for _ in range(index.dim())]
        else:
            found.append(index)
    return found
