"""The adapted ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import register_kind


class AdaptedConvolution(AdaptedLayer):
    """A convolution whose kernel, seen as (d_out, channels * window), gets a low-rank update.

    A is a convolution with ``rank`` output channels and the host's window, B one with a window of one. Autograd's own
    convolution keeps its input for the host's sake, so there is nothing for a special kernel to save.
    """

    is_linear = False
    calls_adapters = False
    convolve: ClassVar[Callable[..., Tensor]]

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
        """(d_out, channels * window) view of the kernel."""
        return self.weight.flatten(1)

    def delta_weight(self) -> Tensor:
        """(d_out, channels, *window)."""
        return self.adapters.delta_weight(self.weight.flatten(1)).view_as(self.weight)

    def forward(self: Any, x: Tensor) -> Tensor:
        """(batch, channels, *size) to (batch, d_out, *size')."""
        out = self.convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        (adapter,) = self.adapters.values()
        dropped = F.dropout(x, self.adapters.config.dropout, self.training)
        A, B = self.to_peft(adapter.factor_A, adapter.factor_B)
        h = self.convolve(dropped, A.to(x.dtype), None, self.stride, self.padding, self.dilation)
        return out + adapter.scaling * self.convolve(h, B.to(h.dtype))

    def tokens(self: Any, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """(places, channels * window) and (places, d_out): what the window sees at each place, and what comes of it."""
        num_dims = len(self.kernel_size)
        sides: list[int] = []
        for dim in reversed(range(num_dims)):  # the last dimension comes first
            size = self.dilation[dim] * (self.kernel_size[dim] - 1)
            if isinstance(self.padding, str):
                sides += [size // 2, size - size // 2] if self.padding == "same" else [0, 0]
            else:
                sides += [self.padding[dim]] * 2
        windows = F.pad(inputs, sides)
        for dim in range(num_dims):
            size = self.dilation[dim] * (self.kernel_size[dim] - 1) + 1
            windows = windows.unfold(2 + dim, size, self.stride[dim])[..., :: self.dilation[dim]]
        # (batch, channels, *places, *window) to (batch, *places, channels, *window)
        windows = windows.movedim(1, 1 + num_dims).flatten(1 + num_dims).flatten(0, num_dims)
        return windows, outputs.movedim(1, -1).flatten(0, num_dims)

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Two kernels: (rank, channels, *window) and (d_out, rank, 1, ...)."""
        window = self.weight.shape[2:]
        return A.view(len(A), -1, *window), B.view(*B.shape, *[1] * len(window))


@register_kind
class AdaptedConv1d(AdaptedConvolution, nn.Conv1d):
    """An adapted ``nn.Conv1d``."""

    host = nn.Conv1d
    convolve = staticmethod(F.conv1d)


@register_kind
class AdaptedConv2d(AdaptedConvolution, nn.Conv2d):
    """An adapted ``nn.Conv2d``."""

    host = nn.Conv2d
    convolve = staticmethod(F.conv2d)


@register_kind
class AdaptedConv3d(AdaptedConvolution, nn.Conv3d):
    """An adapted ``nn.Conv3d``."""

    host = nn.Conv3d
    convolve = staticmethod(F.conv3d)
