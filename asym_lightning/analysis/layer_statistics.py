"""What a calibration batch tells of real layers: second moments of inputs and of gradients at the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.analysis.least_squares import LeastSquaresGap, effective_dimension, mean_least_squares_gap
from asym_lightning.analysis.observed_layers import observed_layers
from asym_lightning.core.names import submodule

Loss = Callable[[Any], Tensor]


@dataclass
class LayerStatistics:
    """Second moments of one layer, mean over tokens (or images, or pixels).

    Attributes:
        input_covariance: Of the layer's inputs, not centred (d_in, d_in).
        output_metric: Of the loss's gradient by the layer's outputs (d_out, d_out): the curvature of the loss there, in
            the Gauss-Newton approximation that K-FAC makes.
        num_tokens: How many tokens were averaged.
    """

    input_covariance: Tensor
    output_metric: Tensor
    num_tokens: int = 0

    def rows(self, start: int, stop: int) -> LayerStatistics:
        """Return the statistics of a slice of a fused layer, such as q of qkv."""
        return LayerStatistics(self.input_covariance, self.output_metric[start:stop, start:stop], self.num_tokens)


def layer_statistics(
    model: nn.Module, layers: Sequence[str], batches: Iterable[Any], loss: Loss
) -> dict[str, LayerStatistics]:
    """Run batches forward and backward and gather the statistics of linear layers.

    Parameters are not changed. With the labels of the data the second moment of gradients is the empirical Fisher
    matrix; with labels drawn from the model's own predictions, which `loss` may do, it is the true one.

    Args:
        model: The model; some parameter before each layer, or its input, must require a gradient.
        layers: Names of `nn.Linear` layers.
        batches: Calibration batches; a few hundred samples are plenty for layers of some hundred inputs.
        loss: Returns the loss of a batch, summed over samples so that each counts alike.

    Raises:
        ValueError: If a layer is no `nn.Linear`, or got no input or gradient.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> data = [torch.randn(100, 3)]
        >>> found = layer_statistics(model, ["0"], data, lambda x: model(x).square().sum())["0"]
        >>> torch.allclose(found.input_covariance, data[0].double().T @ data[0].double() / 100)
        True
        >>> found.output_metric.shape, found.num_tokens
        (torch.Size([4, 4]), 100)
    """
    modules = {name: submodule(model, name) for name in layers}
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            raise ValueError(f"`{name}` is a {type(module).__name__}; statistics are taken of nn.Linear layers.")
    statistics = {name: _empty(module) for name, module in modules.items() if isinstance(module, nn.Linear)}

    def add(name: str, inputs: Tensor, gradients: Tensor) -> None:
        x, g, found = inputs.cpu().double(), gradients.cpu().double(), statistics[name]
        found.input_covariance += x.T @ x
        found.output_metric += g.T @ g
        found.num_tokens += len(x)

    with observed_layers(modules, add):
        for batch in batches:
            with torch.enable_grad():
                value = loss(batch)
            # By all trainable parameters: hooks fire on the way, and no `.grad` is left behind.
            torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    for name, found in statistics.items():
        if found.num_tokens == 0 or not found.output_metric.any():
            raise ValueError(f"`{name}` was never called, or no gradient came to it.")
        found.input_covariance /= found.num_tokens
        found.output_metric /= found.num_tokens
    return statistics


@dataclass(frozen=True)
class LayerAdvice:
    """Which factor of one layer is worth training.

    Attributes:
        gap: Explained by the best B and by the best A of random frozen partners.
        input_dimension: Effective number of directions of the inputs.
        output_dimension: Effective number of directions of the gradients at the outputs.
    """

    gap: LeastSquaresGap
    input_dimension: float
    output_dimension: float

    @property
    def factor(self) -> str:
        """The factor that explains more of the target update, "A" or "B"."""
        return "B" if self.gap.gap >= 0 else "A"


def advise_layers(
    updates: Mapping[str, Tensor], statistics: Mapping[str, LayerStatistics], rank: int, *, num_draws: int = 10
) -> dict[str, LayerAdvice]:
    """Say for each layer which factor is worth training, from a target update and a calibration batch.

    Args:
        updates: Target update (d_out, d_in) by layer, such as that of a full fine-tuning or of an adapter of high rank.
        statistics: Statistics by layer.
        rank: Rank of the adapter to be trained.
        num_draws: Number of random frozen factors to average over.
    """
    return {
        name: LayerAdvice(
            mean_least_squares_gap(
                update, statistics[name].input_covariance, rank, statistics[name].output_metric, num_draws=num_draws
            ),
            effective_dimension(statistics[name].input_covariance),
            effective_dimension(statistics[name].output_metric),
        )
        for name, update in updates.items()
    }


def _empty(layer: nn.Linear) -> LayerStatistics:
    d_out, d_in = layer.weight.shape
    return LayerStatistics(torch.zeros(d_in, d_in, dtype=torch.float64), torch.zeros(d_out, d_out, dtype=torch.float64))
