"""What passes through a layer: its inputs, and the gradients that come back to its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import kind_of

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
        kind = type(layer) if isinstance(layer, AdaptedLayer) else kind_of(layer) or AdaptedLayer

        def on_gradient(gradient: Tensor) -> None:
            host: Any = layer  # the methods read only what the host's layer has
            observe(name, kind.input_tokens(host, x), kind.output_tokens(host, gradient.detach()))

        output.register_hook(on_gradient)

    return on_forward
