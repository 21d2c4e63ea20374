"""The adapted ``nn.Linear``."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from asym_lightning.adapters.layers.adapted import AdaptedLayer, PeftPlace, own_parameter
from asym_lightning.adapters.layers.kinds.registry import register_kind


@register_kind
class AdaptedLinear(AdaptedLayer, nn.Linear):
    """``y = x (W + s B A)^T + b``; see :mod:`asym_lightning.adapters.kernels.linear`."""

    host = nn.Linear
    # transformers' Falcon writes out `x @ W.T + b` to round like its first implementation, timm casts where it scripts.
    plain_subclasses: ClassVar[tuple[str, ...]] = ("FalconLinear", "timm.layers.linear.Linear")

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """The class itself, and the few subclasses that are known to compute the same."""
        name = f".{type(layer).__module__}.{type(layer).__name__}"
        return super().adapts(layer) or any(name.endswith(f".{plain}") for plain in cls.plain_subclasses)

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(d_out, d_in), also of a subclass that keeps its weight in another shape."""
        return layer.out_features, layer.in_features

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in): the weight itself."""
        return own_parameter(self)

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(own_parameter(self))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, own_parameter(self), self.bias)


@register_kind
class AdaptedAttentionOutput(AdaptedLinear, NonDynamicallyQuantizableLinear):
    """The output projection of ``nn.MultiheadAttention``, a linear layer under a name of its own."""

    host = NonDynamicallyQuantizableLinear
    plain_subclasses = ()
    is_misread_by_peft = True  # adds the update twice

    def peft_place(self, name: str) -> PeftPlace:
        """With the attention that it is the output of, which PEFT adapts with it."""
        attention, _, own = name.rpartition(".")
        return PeftPlace(f"{attention}.base_layer.{own}", attention)
