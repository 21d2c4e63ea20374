"""Count the bytes that live while something is computed.

torch has trackers of its own (`torch.distributed._tools`), which are not public and do not serve here: `MemTracker`
registers hooks on every parameter and fails at the first frozen one, and both it and `FSDPMemTracker` look through all
modules after each operator, which takes minutes for a deep model.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asym_lightning.core.private_names import TorchDispatchMode


class MemoryTrace(TorchDispatchMode):
    """Bytes of the tensors that come into being within the context, each storage once and for as long as it lives.

    Gradients are counted apart: those that lie in `grad` of a parameter that was given to `watch_gradients`.

    >>> with MemoryTrace() as trace:
    ...     x = torch.zeros(10)
    ...     total = float((x + 1).sum())
    >>> trace.live, trace.peak
    (40, 84)

    Args:
        gradient_share: Part of the gradients' bytes that count for the peak: 1 / devices where they are sharded.

    Attributes:
        live: Bytes that live now, gradients left out.
        gradients: Bytes of gradients that live now.
        peak: The most that `live + gradient_share * gradients` has been.
    """

    def __init__(self, gradient_share: float = 1) -> None:
        super().__init__()
        self.gradient_share = gradient_share
        self.live = 0
        self.gradients = 0
        self.peak: float = 0
        self._known: dict[int, bool] = {}  # id of a storage, which keeps it while it lives: whether it is a gradient
        self._hooks: list[Any] = []

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Leave out storages that were there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[id(storage)] = False
            weakref.finalize(storage, self._known.pop, id(storage), None)

    def watch_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Count gradients of these parameters as such, from when they are ready."""
        for parameter in parameters:
            self._hooks.append(parameter.register_post_accumulate_grad_hook(self._is_gradient))

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.count_as_gradient(parameter.grad)

    def count_as_gradient(self, tensor: Tensor) -> None:
        """Count a tensor, which may be known already, as a gradient."""
        storage = tensor.untyped_storage()
        if self._known.get(id(storage)):
            return
        if id(storage) in self._known:
            self._known[id(storage)] = True
            self.live -= storage.nbytes()
            self.gradients += storage.nbytes()
        else:
            self._add(storage, is_gradient=True)
        self._update_peak()

    def restart_peak(self) -> None:
        """Forget the peak so far."""
        self.peak = 0
        self._update_peak()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it returns."""
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self._known:
                    self._add(storage)
        self._update_peak()
        return out

    def __exit__(self, *args: Any) -> None:
        """Stop counting, and stop watching gradients."""
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*args)

    def _add(self, storage: torch.UntypedStorage, is_gradient: bool = False) -> None:
        key, size = id(storage), storage.nbytes()
        self._known[key] = is_gradient
        if is_gradient:
            self.gradients += size
        else:
            self.live += size
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        if self._known.pop(key):
            self.gradients -= size
        else:
            self.live -= size

    def _update_peak(self) -> None:
        self.peak = max(self.peak, self.live + self.gradient_share * self.gradients)
