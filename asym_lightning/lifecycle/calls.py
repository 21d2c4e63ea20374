"""Which adapted layers a model calls in its first evaluation: host code may go past a layer while nothing trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.utils.hooks import RemovableHandle

from asym_lightning.adapters import adapter_layers
from asym_lightning.core.messages import listed
from asym_lightning.core.private_names import is_compiled


class CallsInEvaluation:
    """Looks at one batch, the first that is evaluated, and warns of adapted layers that it did not call.

    A training step tells by gradients. Without them only the calls tell, where an adapter is one that is called: those
    whose weight is known to be read compute with their update however it is read. What is compiled is left alone, for
    a hook would have it compiled anew.

    Example:
        >>> calls = CallsInEvaluation()
        >>> calls.begin(nn.Linear(2, 2))  # nothing is adapted
        >>> calls.end()
    """

    def __init__(self) -> None:
        self._is_done = False
        self._waiting: set[str] = set()
        self._handles: list[RemovableHandle] = []

    def begin(self, backbone: nn.Module) -> None:
        """Watch the calls of a model's adapted layers, unless an evaluation has been watched before."""
        if self._is_done or is_compiled(backbone):
            return
        self._is_done = True
        for name, layer in adapter_layers(backbone).items():
            if not layer.adapters.is_read:
                self._waiting.add(name)
                self._handles.append(layer.holder().register_forward_pre_hook(self._note(name)))

    def end(self) -> None:
        """Watch no longer, and warn of what was not called."""
        names = sorted(self._waiting)
        self.forget()
        if names:
            rank_zero_warn(
                f"{len(names)} adapted layers were not called in the first batch of this evaluation, so that their "
                f"adapters had no part in it: {listed([f'`{name}`' for name in names], 5)}. Where the model computes "
                "with their weights all the same, its code goes past them, and `exclude` should name them; where it "
                "has no use for them in evaluation, all is well."
            )

    def forget(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._waiting = [], set()

    def _note(self, name: str) -> Any:
        return lambda module, inputs: self._waiting.discard(name)
