"""What passes through a layer: its inputs, and the gradients that come back to its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Observer = Callable[[str, Tensor, Tensor], None]


@contextmanager
def observed_layers(layers: Mapping[str, nn.Module], observe: Observer) -> Iterator[None]:
    """Tell an observer of every token that passes through some layers, while the context lasts.

    It is called when the gradient arrives, once for each call of a layer that the loss depends on; so a forward pass
    without gradients, such as the first one of activation checkpointing, does not count twice.

    Args:
        layers: Linear or convolutional layers by name, adapted or not.
        observe: Takes the layer's name, its inputs (tokens, d_in) and the loss's gradients by its outputs
            (tokens, d_out). A convolution's tokens are the places of its window, and d_in counts the window.

    Example:
        >>> import torch
        >>> layer, x = nn.Linear(3, 2), torch.ones(4, 5, 3)
        >>> shapes = []
        >>> with observed_layers({"fc": layer}, lambda name, x, g: shapes.append((name, x.shape, g.shape))):
        ...     layer(x).sum().backward()
        >>> shapes
        [('fc', torch.Size([20, 3]), torch.Size([20, 2]))]
    """
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(_hook(name, observe)).remove)
        yield


def _hook(name: str, observe: Observer) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def on_forward(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if not output.requires_grad:
            return
        x = inputs[0].detach()

        def on_gradient(gradient: Tensor) -> None:
            g = gradient.detach()
            if isinstance(layer, nn.Conv2d):
                observe(name, _windows(layer, x), g.flatten(2).transpose(1, 2).flatten(0, 1))
            else:
                observe(name, x.flatten(0, -2), g.flatten(0, -2))

        output.register_hook(on_gradient)

    return on_forward


def _windows(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """(places, channels * height * width): what the window of a convolution sees at each place."""
    sides: list[int] = []
    for dim in (1, 0):  # the last dimension comes first
        size, padding = conv.dilation[dim] * (conv.kernel_size[dim] - 1), conv.padding
        if isinstance(padding, str):
            sides += [size // 2, size - size // 2] if padding == "same" else [0, 0]
        else:
            sides += [int(padding[dim])] * 2
    windows = F.unfold(F.pad(x, sides), conv.kernel_size, conv.dilation, stride=conv.stride)
    return windows.transpose(1, 2).flatten(0, 1)
