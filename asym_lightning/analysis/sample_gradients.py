"""The gradient of each sample's own loss, for all that trains of a model, from one backward pass of the batch.

Of a matrix it is ``g_i^T x_i``, with a row a token: the inputs x_i of sample i and the gradients g_i at the outputs. Of
an adapter's B the inputs are ``h = s A x``, ``rank`` numbers a token, so neither a gradient of A nor of W, nor the
layer's input, is ever held. Norms are exact either way: of the products themselves where they are the smaller numbers,
else ``sum((g_i g_i^T) * (x_i x_i^T))``, which forms none of them (ghost norms).

Source: Li et al. 2022 (arXiv 2110.05679), the ghost norm; Bu et al. 2023 (arXiv 2210.00038), clipped sums from what one
backward pass has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.kernels.linear import in_compute_dtype
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import kind_of
from asym_lightning.core.messages import listed
from asym_lightning.core.names import plain_modules, plain_name


class Products(NamedTuple):
    """Gradients of a matrix, ``gradients[i].T @ inputs[i]`` of sample i.

    Attributes:
        gradients: (samples, tokens, d_out), at what the matrix gives.
        inputs: (samples, tokens, d_in), what it multiplies.
    """

    gradients: Tensor
    inputs: Tensor

    def dense(self) -> Tensor:
        """(samples, d_out, d_in)."""
        return self.gradients.mT @ self.inputs


Gradients = Tensor | Products  # a tensor has the samples as its first dimension
OfCall = Callable[[Tensor], Iterable[tuple[nn.Parameter, Gradients]]]
Rule = Callable[[Tensor, int], OfCall]


class BatchGradients:
    """What one backward pass has shown of a batch whose loss is the mean of its samples' own losses.

    Args:
        parameters: What trains.
        num_samples: Samples in the batch.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_samples: int) -> None:
        self.num_samples = num_samples
        self._parameters = list(parameters)
        self._found: dict[int, Gradients] = {}

    def add(self, parameter: nn.Parameter, gradients: Gradients) -> None:
        """Add what one call of a layer gives; a parameter that is used twice has the sum."""
        earlier = self._found.get(id(parameter))
        if isinstance(gradients, Products):
            gradients = _smaller(gradients)
        if earlier is None:
            self._found[id(parameter)] = gradients
        else:
            self._found[id(parameter)] = _dense(earlier) + _dense(gradients)

    def norms(self) -> Tensor:
        """(samples,): the norm of each sample's own gradient by all that trains."""
        device = self._parameters[0].device
        squares = torch.zeros(self.num_samples, device=device)
        for gradients in self._found.values():
            squares = squares + _squared_norms(gradients).to(device)
        return self.num_samples * squares.sqrt()

    def weighted_sums(self, weights: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each trained parameter with the sum of the samples' own gradients, each times its weight (samples,)."""
        for parameter in self._parameters:
            gradients = self._found.get(id(parameter))
            if gradients is None:
                yield parameter, torch.zeros_like(parameter)
                continue
            scaled = self.num_samples * weights
            if isinstance(gradients, Products):
                weighted = gradients.gradients * scaled.to(gradients.gradients)[:, None, None]
                summed = weighted.flatten(0, 1).mT @ gradients.inputs.flatten(0, 1)
            else:
                summed = torch.einsum("n,n...->...", scaled.to(gradients), gradients)
            yield parameter, summed.view_as(parameter).to(parameter.dtype)


class SampleGradients:
    """The gradients of single samples in a model whose calls have the samples as their first dimension.

    What may train is B of adapted layers whose A is frozen, and the parameters of linear layers, of convolutions
    without groups and of layer normalisations.

    Args:
        model: The model, as it trains.

    Raises:
        ValueError: Something trains whose gradients by sample are not known, or nothing trains.

    Example:
        >>> layer, x = nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> with SampleGradients(layer).observed(num_samples=2) as gradients:
        ...     layer(x).mean().backward()
        >>> gradients.norms()
        tensor([5., 1.])
        >>> [(_, summed)] = gradients.weighted_sums(torch.tensor([0.2, 1.0]))
        >>> summed
        tensor([[0.6000, 1.8000]])
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[str, tuple[nn.Module, Rule]] = {}
        known: set[int] = set()
        for name, layer in plain_modules(model):
            own = _own_trained(layer)
            rule = _rule_of(layer) if own else None
            if rule is not None:
                self._layers[name] = layer, rule
                known.update(map(id, own))
        trained = {plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}
        unknown = [f"`{name}`" for name, parameter in trained.items() if id(parameter) not in known]
        if unknown:
            raise ValueError(
                f"The gradients of single samples are not known for {listed(unknown, 4)}; they are for B of adapted "
                "linear layers and convolutions without groups whose A is frozen, and for nn.Linear, convolutions "
                "without groups and nn.LayerNorm: freeze what is none of these."
            )
        if not trained:
            raise ValueError("Nothing trains, so no sample has a gradient.")
        self.parameters: Mapping[str, nn.Parameter] = trained

    @contextmanager
    def observed(self, num_samples: int) -> Iterator[BatchGradients]:
        """Observe the forward and the backward pass of a batch of so many samples, while the context lasts.

        Raises:
            ValueError: In the forward pass, where a layer's rows are not as many, or a multiple.
        """
        found = BatchGradients(self.parameters.values(), num_samples)
        with ExitStack() as hooks:
            for name, (layer, rule) in self._layers.items():
                hooks.callback(layer.register_forward_hook(_hook(name, rule, found)).remove)
            yield found


def _hook(name: str, rule: Rule, found: BatchGradients) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    num_samples = found.num_samples

    def on_forward(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if not output.requires_grad or not num_samples:
            return
        x = inputs[0].detach()
        if len(x) % num_samples:
            raise ValueError(
                f"`{name}` is called with {len(x)} rows in a batch of {num_samples} samples, so which row is whose "
                "can't be told: the samples have to be the first dimension."
            )
        with torch.no_grad():
            of_call = rule(x, num_samples)

        def on_gradient(gradient: Tensor) -> None:
            for parameter, gradients in of_call(gradient.detach()):
                found.add(parameter, gradients)

        output.register_hook(on_gradient)

    return on_forward


def _own_trained(layer: nn.Module) -> list[nn.Parameter]:
    """What trains of a layer itself and, where it is adapted, of its adapters."""
    parameters = list(layer.parameters(recurse=False))
    if isinstance(layer, AdaptedLayer):
        parameters += layer.adapters.parameters()
    return [parameter for parameter in parameters if parameter.requires_grad]


def _rule_of(layer: nn.Module) -> Rule | None:
    """How the gradients of what trains of a layer come about; None if that is not known."""
    if isinstance(layer, nn.LayerNorm):
        return _of_normalization(layer)
    if isinstance(layer, AdaptedLayer):
        trains_more = any(p.requires_grad for p in (*layer.parameters(recurse=False), *layer.adapters.As))
        return None if trains_more or not layer.shows_tokens else _of_adapters(layer)
    kind = kind_of(layer)
    if kind is None or not (kind.is_linear or kind.is_convolution) or kind.fan_in_fan_out or kind.is_read:
        return None
    return None if getattr(layer, "groups", 1) > 1 or kind.refusal(layer) else _of_matrix(layer, kind)


def _of_adapters(layer: AdaptedLayer) -> Rule:
    """B of each slice, which multiplies ``s A x``."""

    def rule(x: Tensor, num_samples: int) -> OfCall:
        tokens = in_compute_dtype(layer.input_tokens(x))
        adapters = layer.adapters
        hs = [_by_sample(tokens @ A.to(tokens.dtype).T, num_samples) for A in adapters.As]

        def of_call(gradient: Tensor) -> Iterator[tuple[nn.Parameter, Gradients]]:
            g = _by_sample(layer.output_tokens(gradient), num_samples)
            for number, (name, adapter) in enumerate(adapters.items()):
                h = hs[0 if adapters.shares_a else number]
                yield adapter.factor_B, Products(adapters.rows[name].take(g), adapter.scaling * h)

        return of_call

    return rule


def _of_matrix(layer: Any, kind: type[AdaptedLayer]) -> Rule:
    """The weight and the bias of a linear layer or a convolution."""

    def rule(x: Tensor, num_samples: int) -> OfCall:
        trains = layer.weight.requires_grad
        tokens = _by_sample(in_compute_dtype(kind.input_tokens(layer, x)), num_samples) if trains else None

        def of_call(gradient: Tensor) -> Iterator[tuple[nn.Parameter, Gradients]]:
            g = _by_sample(kind.output_tokens(layer, gradient), num_samples)
            if tokens is not None:
                yield layer.weight, Products(g, tokens)
            if layer.bias is not None and layer.bias.requires_grad:
                yield layer.bias, g.sum(1)

        return of_call

    return rule


def _of_normalization(layer: nn.LayerNorm) -> Rule:
    """The scale and the shift of a layer normalisation."""

    def rule(x: Tensor, num_samples: int) -> OfCall:
        shape = layer.normalized_shape
        normalized = nn.functional.layer_norm(_wide(x), shape, eps=layer.eps)

        def of_call(gradient: Tensor) -> Iterator[tuple[nn.Parameter, Gradients]]:
            g = _wide(gradient)
            for parameter, each in ((layer.weight, g * normalized), (layer.bias, g)):
                if parameter is not None and parameter.requires_grad:
                    yield parameter, each.reshape(num_samples, -1, *shape).sum(1)

        return of_call

    return rule


def _by_sample(tokens: Tensor, num_samples: int) -> Tensor:
    """(tokens of all samples, width) as (samples, tokens, width)."""
    return _wide(tokens).reshape(num_samples, -1, tokens.shape[-1])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _smaller(products: Products) -> Gradients:
    """Multiplied out where that is the smaller number of numbers to keep."""
    (_, num_tokens, d_out), d_in = products.gradients.shape, products.inputs.shape[-1]
    return products.dense() if d_out * d_in < num_tokens * (d_out + d_in) else products


def _dense(gradients: Gradients) -> Tensor:
    return gradients.dense() if isinstance(gradients, Products) else gradients


def _squared_norms(gradients: Gradients) -> Tensor:
    if isinstance(gradients, Products):
        grams = (gradients.gradients @ gradients.gradients.mT) * (gradients.inputs @ gradients.inputs.mT)
        return grams.sum((1, 2)).clamp(min=0)
    return gradients.flatten(1).square().sum(1)
