"""The adapted ``nn.Linear``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import register_kind

# transformers' Falcon writes out `x @ W.T + b` to round like its first implementation.
_PLAIN_SUBCLASSES = ("FalconLinear",)


@register_kind
class AdaptedLinear(AdaptedLayer, nn.Linear):
    """``y = x (W + s B A)^T + b``; see :mod:`asym_lightning.adapters.kernels.linear`."""

    host = nn.Linear

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """The class itself, and the few subclasses that are known to compute the same."""
        return super().adapts(layer) or type(layer).__name__ in _PLAIN_SUBCLASSES

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(d_out, d_in), also of a subclass that keeps its weight in another shape."""
        return layer.out_features, layer.in_features

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in): the weight itself."""
        return self.weight

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, self.weight, self.bias)
