"""The adapted ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.kinds.registry import register_kind
from asym_lightning.core.private_names import own_convolution


class AdaptedConvolution(AdaptedLayer):
    """A convolution whose kernel, seen as (d_out, channels * window), gets a low-rank update.

    A is a convolution with ``rank`` output channels and the host's window, B one with a window of one. Autograd's own
    convolution keeps its input for the host's sake, so there is nothing for a special kernel to save.

    The kernel of a grouped convolution, a depthwise one too, is the same matrix with the channels of one group: every
    group is read by the same A, and B has rows for all.
    """

    is_linear = False
    is_convolution = True
    calls_adapters = False
    convolve: ClassVar[Callable[..., Tensor]]

    @classmethod
    def counts_as_linear(cls, layer: Any) -> bool:
        """A window of one without groups is a linear layer at each place."""
        return layer.groups == 1 and all(size == 1 for size in layer.kernel_size)

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(d_out, channels of a group * window), also of a subclass that keeps its kernel in another form."""
        return layer.out_channels, layer.in_channels // layer.groups * prod(layer.kernel_size)

    def weight_matrix(self) -> Tensor:
        """(d_out, channels of a group * window) view of the kernel."""
        return own_parameter(self).flatten(1)

    def delta_weight(self) -> Tensor:
        """(d_out, channels of a group, *window)."""
        return self.adapters.delta_weight(self.weight_matrix()).view_as(own_parameter(self))

    def forward(self: Any, x: Tensor) -> Tensor:
        """(batch, channels, *size) to (batch, d_out, *size')."""
        weight = own_parameter(self)
        out = own_convolution(self, x, weight, self.bias)
        A, B = self.to_peft(*self.adapters.joined(len(weight)))
        dropped = F.dropout(x, self.adapters.config.dropout, self.training)
        h = own_convolution(self, dropped, A.to(x.dtype), None)
        return out + self.convolve(h, B.to(h.dtype), groups=self.groups)

    @property
    def shows_tokens(self) -> bool:
        """Not where each place has a window a group."""
        groups: Any = self.groups
        return groups == 1

    def input_tokens(self: Any, inputs: Tensor) -> Tensor:
        """(places, channels * window): what the window sees at each place."""
        num_dims = len(self.kernel_size)
        sides: list[int] = []
        for dim in reversed(range(num_dims)):  # the last dimension comes first
            size = self.dilation[dim] * (self.kernel_size[dim] - 1)
            if isinstance(self.padding, str):
                sides += [size // 2, size - size // 2] if self.padding == "same" else [0, 0]
            else:
                sides += [self.padding[dim]] * 2
        windows = F.pad(inputs, sides, "constant" if self.padding_mode == "zeros" else self.padding_mode)
        for dim in range(num_dims):
            size = self.dilation[dim] * (self.kernel_size[dim] - 1) + 1
            windows = windows.unfold(2 + dim, size, self.stride[dim])[..., :: self.dilation[dim]]
        # (batch, channels, *places, *window) to (batch, *places, channels, *window)
        return windows.movedim(1, 1 + num_dims).flatten(1 + num_dims).flatten(0, num_dims)

    def output_tokens(self: Any, outputs: Tensor) -> Tensor:
        """(places, d_out): what comes of each place."""
        return outputs.movedim(1, -1).flatten(0, -2)

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Two kernels: (groups * rank, channels of a group, *window) and (d_out, rank, 1, ...)."""
        window = own_parameter(self).shape[2:]
        groups: Any = self.groups
        A = A.view(len(A), -1, *window).repeat(groups, *[1] * (1 + len(window)))
        return A, B.view(*B.shape, *[1] * len(window))

    def from_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`to_peft`.

        Raises:
            ValueError: The groups have A's of their own.
        """
        groups: Any = self.groups
        first, *others = A.flatten(1).chunk(groups)
        if any(not other.equal(first) for other in others):
            raise ValueError(f"has an A for each of its {groups} groups, where one is adapted that all of them read")
        return first, B.flatten(1)

    def peft_rank(self, rank: int) -> int:
        """PEFT counts the channels of A in all groups."""
        groups: Any = self.groups
        return rank * groups


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
