"""The adapted linear layers of bitsandbytes, ours (:mod:`asym_lightning.adapters.layers.quantized`) and its own."""

from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import register_kind
from asym_lightning.adapters.layers.quantized import Linear4bit, Linear8bit, QuantizedLinear, dense_weight


class AdaptedQuantizedLinear(AdaptedLayer, QuantizedLinear):
    """``y = x (W + s B A)^T + b`` with W in few bits."""

    has_dense_weight = False

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(d_out, d_in), which the packed weight does not show."""
        return layer.out_features, layer.in_features

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in), dequantised: a new tensor."""
        return dense_weight(self)

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(self.quantized_weight())

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, self.quantized_weight(), self.bias)


@register_kind
class AdaptedLinear4bit(AdaptedQuantizedLinear, Linear4bit):
    """An adapted layer of 4 bits, ours or bitsandbytes' own."""

    host = bnb.nn.Linear4bit

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """Not a subclass with a forward pass of its own."""
        return isinstance(layer, cls.host) and _computes_as(layer, Linear4bit, cls.host)


@register_kind
class AdaptedLinear8bit(AdaptedQuantizedLinear, Linear8bit):
    """An adapted layer of 8 bits, ours or bitsandbytes' own; of the latter, activations are not rounded any more."""

    host = bnb.nn.Linear8bitLt

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """Not a subclass with a forward pass of its own, nor one whose weight is dense and rounded in each pass."""
        if not (isinstance(layer, bnb.nn.Linear8bitLt) and _computes_as(layer, Linear8bit, cls.host)):
            return False
        return not layer.state.has_fp16_weights


def _computes_as(layer: nn.Module, *classes: type[nn.Module]) -> bool:
    return type(layer).forward in [cls.forward for cls in classes]
