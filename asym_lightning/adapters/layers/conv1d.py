"""The adapted ``Conv1D`` of transformers (GPT-2): a linear layer that keeps its weight as (d_in, d_out).

Apart from the other layers, so that transformers is imported only where a model brings such a layer.
"""

from __future__ import annotations

from torch import Tensor
from transformers.pytorch_utils import Conv1D

from asym_lightning.adapters.layers.adapted import AdaptedLayer


class AdaptedConv1D(AdaptedLayer, Conv1D):  # type: ignore[misc]
    """``y = x (W + s B A)^T + b`` with W stored transposed."""

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in) view of the weight."""
        return self.weight.T

    def delta_weight(self) -> Tensor:
        """(d_in, d_out)."""
        return self.adapters.delta_weight(self.weight.T).T

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, self.weight.T, self.bias)
