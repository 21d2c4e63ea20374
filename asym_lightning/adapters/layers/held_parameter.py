"""Parameters that a module of the host's holds and multiplies by itself, adapted each like a layer."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer, PeftPlace, with_update
from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.core.private_names import set_child


class HeldParameter(nn.Module):
    """One parameter of a module seen as a layer, which it is not: the parameter stays where it is.

    Args:
        owner: The module that holds it.
        parameter: Name of the parameter in it.
    """

    def __init__(self, owner: nn.Module, parameter: str) -> None:
        super().__init__()
        # In a tuple, so that nn.Module does not register it.
        self.owner, self.parameter = (owner,), parameter

    @property
    def whole(self) -> nn.Parameter:
        """The parameter."""
        parameter = self.owner[0]._parameters[self.parameter]
        assert parameter is not None
        return parameter


class AdaptedHeldParameter(AdaptedLayer, HeldParameter):
    """Shows its owner, while the owner's forward pass runs, a parameter with the update. Dropout is not drawn for it.

    Attributes:
        what: What the numbers are, in messages.
    """

    calls_adapters = False
    what: ClassVar[str]

    @classmethod
    def refusal(cls, layer: Any) -> str | None:
        """Numbers that are packed or of an unknown kind."""
        if not layer.whole.is_floating_point() or not type(layer.whole).__module__.startswith("torch."):
            found = f"{type(layer.whole).__name__} ({layer.whole.dtype})"
            return f"is the weights of {cls.what} in numbers of type {found}, which are not adapted"
        return None

    @property
    def shows_tokens(self) -> bool:
        """No: the owner's code computes, and what it multiplies is not seen from outside."""
        return False

    def holder(self) -> nn.Module:
        """The owner."""
        return self.owner[0]

    def base_parameters(self) -> list[nn.Parameter]:
        """The one."""
        return [self.whole]

    def view(self) -> Tensor:
        """The parameter as the owner's forward pass gets it."""
        return with_update(self.whole, self.delta_weight())

    @classmethod
    def adapt_host(cls, layer: Any, adapters: SliceAdapters) -> AdaptedLayer:
        """Put the layer beside its parameter, under the same name; attributes of the owner give the parameter."""
        adapted = super().adapt_host(layer, adapters)
        assert isinstance(adapted, AdaptedHeldParameter)
        owner = adapted.holder()
        set_child(owner, adapted.parameter, adapted)
        if len(_adapted(owner)) == 1:
            hooks = owner.register_forward_pre_hook(_show), owner.register_forward_hook(_hide, always_call=True)
            vars(owner)["parameter_hooks"] = hooks
        return adapted

    def restore_host(self) -> None:
        """Take the layer away from its owner."""
        owner = self.holder()
        set_child(owner, self.parameter, None)
        super().restore_host()
        if not _adapted(owner):
            for hook in vars(owner).pop("parameter_hooks"):
                hook.remove()

    def peft_place(self, name: str) -> PeftPlace:
        """PEFT wraps the owner once for each parameter, in their order."""
        owner, _, own = name.rpartition(".")
        adapted = _adapted(self.holder())
        names = [n for n in self.holder()._parameters if n in adapted]
        depth = len(names) - 1 - names.index(own)
        return PeftPlace(owner + depth * ".base_layer", name, is_parameter=True)


def _adapted(owner: nn.Module) -> dict[str, AdaptedHeldParameter]:
    return {name: module for name, module in owner.named_children() if isinstance(module, AdaptedHeldParameter)}


def _show(owner: nn.Module, inputs: Any) -> None:
    for name, module in _adapted(owner).items():
        vars(owner)[name] = module.view()


def _hide(owner: nn.Module, inputs: Any, output: Any) -> None:
    for name in _adapted(owner):
        vars(owner).pop(name, None)
