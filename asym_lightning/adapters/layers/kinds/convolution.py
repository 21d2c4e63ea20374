"""The adapted ``nn.Conv2d``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import register_kind


@register_kind
class AdaptedConv2d(AdaptedLayer, nn.Conv2d):
    """A convolution whose kernel, seen as (d_out, channels * height * width), gets a low-rank update.

    A is a convolution with ``rank`` output channels and the host's window, B one of size 1x1. Autograd's own
    convolution keeps its input for the host's sake, so there is nothing for a special kernel to save.
    """

    host = nn.Conv2d
    is_linear = False
    calls_adapters = False

    @classmethod
    def refusal(cls, layer: Any) -> str | None:
        """Groups and padding by anything but zeros."""
        if layer.groups > 1 or layer.padding_mode != "zeros":
            return (
                f"is a convolution with groups={layer.groups} and padding_mode={layer.padding_mode!r}; only ungrouped, "
                "zero-padded ones are adapted"
            )
        return super().refusal(layer)

    def weight_matrix(self) -> Tensor:
        """(d_out, channels * height * width) view of the kernel."""
        return self.weight.flatten(1)

    def delta_weight(self) -> Tensor:
        """(d_out, channels, height, width)."""
        return self.adapters.delta_weight(self.weight.flatten(1)).view_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, d_out, height', width')."""
        out = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        (adapter,) = self.adapters.values()
        dropped = F.dropout(x, self.adapters.config.dropout, self.training)
        A = adapter.factor_A.view(-1, *self.weight.shape[1:])
        h = F.conv2d(dropped, A.to(x.dtype), None, self.stride, self.padding, self.dilation)
        return out + adapter.scaling * F.conv2d(h, adapter.factor_B[..., None, None].to(h.dtype))

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Two kernels: (rank, channels, height, width) and (d_out, rank, 1, 1)."""
        return A.view(-1, *self.weight.shape[1:]), B[..., None, None]
