"""The adapted ``nn.Linear``."""

from __future__ import annotations

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer


class AdaptedLinear(AdaptedLayer, nn.Linear):
    """``y = x (W + s B A)^T + b``; see :mod:`asym_lightning.adapters.kernels.linear`."""

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in): the weight itself."""
        return self.weight

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) to (..., d_out)."""
        return self.adapters(x, self.weight, self.bias)
