"""The adapted ``Conv1D`` of transformers (GPT-2): a linear layer that keeps its weight as (d_in, d_out)."""

from __future__ import annotations

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.kinds.registry import register_kind


@register_kind
class AdaptedConv1D(AdaptedLayer, Conv1D):  # type: ignore[misc]
    """``y = x (W + s B A)^T + b`` with W stored transposed."""

    host = Conv1D
    fan_in_fan_out = True

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in) view of the weight."""
        return own_parameter(self).T

    def delta_weight(self) -> Tensor:
        """(d_in, d_out)."""
        return self.adapters.delta_weight(own_parameter(self).T).T

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, own_parameter(self).T, self.bias)
