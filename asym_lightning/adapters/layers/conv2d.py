"""The adapted ``nn.Conv2d``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer


class AdaptedConv2d(AdaptedLayer, nn.Conv2d):
    """A convolution whose kernel, seen as (d_out, channels * height * width), gets a low-rank update.

    A is a convolution with ``rank`` output channels and the host's window, B one of size 1x1. Autograd's own
    convolution keeps its input for the host's sake, so there is nothing for a special kernel to save.
    """

    def weight_matrix(self) -> Tensor:
        """(d_out, channels * height * width) view of the kernel."""
        return self.weight.flatten(1)

    def delta_weight(self) -> Tensor:
        """(d_out, channels, height, width)."""
        return self.adapters.delta_weight(self.weight_matrix()).view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, d_out, height', width')."""
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        (adapter,) = self.adapters.values()
        dropped = F.dropout(x, self.adapters.config.dropout, self.training)
        A = adapter.factor_A.view(-1, *self.weight.shape[1:])
        h = F.conv2d(dropped, A.to(x.dtype), None, self.stride, self.padding, self.dilation)
        return out + adapter.scaling * F.conv2d(h, adapter.factor_B[..., None, None].to(h.dtype))
