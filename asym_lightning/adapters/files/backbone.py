"""By what a backbone is known again: the first numbers of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.lookup import adapter_layers
from asym_lightning.core.dtensor import first_numbers, is_sharded
from asym_lightning.core.private_names import FakeTensor

_NUM_SAMPLED = 8
_NUM_DIGITS = 4  # far more than the tolerance asks for
_TOLERANCE = (2e-2, 1e-4)  # relative and absolute, for a backbone kept in bfloat16 then and in float32 now


def backbone_sample(model: nn.Module, num_layers: int | None = None) -> dict[str, list[float]]:
    """The first numbers of every adapted layer's weight that is dense (communicates where the model is sharded).

    Args:
        model: An adapted model.
        num_layers: Of so many layers, spread over the model; ``None`` means of all.
    """
    weights = {name: layer.base_parameters()[0] for name, layer in adapter_layers(model).items()}
    dense = [name for name, weight in weights.items() if _is_dense(weight)]
    step = 1 if num_layers is None else max(len(dense) // num_layers, 1)
    return {name: _sample(weights[name]) for name in dense[::step][:num_layers]}


def unchanged_sample(model: nn.Module) -> dict[str, list[float]]:
    """The first numbers of every frozen weight that is not adapted: merging leaves them as they are.

    Args:
        model: An adapted model; where it is sharded every process has to call this.
    """
    layers = adapter_layers(model).values()
    adapted = {id(p) for layer in layers for p in (layer.base_parameters()[0], *layer.adapters.parameters())}
    return {
        name: _sample(weight)
        for name, weight in model.named_parameters()
        if id(weight) not in adapted and not weight.requires_grad and _is_dense(weight)
    }


def other_weight(here: Mapping[str, Sequence[float]], there: Mapping[str, Sequence[float]]) -> str | None:
    """The first layer of two samples that is another one; ``None`` where none is, as where the two have none in common.

    >>> other_weight({"fc": [1.0, 2.0]}, {"fc": [1.0, 2.5]}), other_weight({"fc": [1.0]}, {"proj": [2.0]})
    ('fc', None)
    """
    for name in [name for name in here if name in there]:
        a, b = torch.tensor(here[name]), torch.tensor(there[name])
        if a.shape != b.shape or not torch.allclose(a, b, *_TOLERANCE):
            return name
    return None


def _sample(weight: Tensor) -> list[float]:
    return [float(f"{number:.{_NUM_DIGITS}g}") for number in first_numbers(weight, _NUM_SAMPLED).float().tolist()]


def _is_dense(weight: Tensor) -> bool:
    is_plain = type(weight) in (nn.Parameter, FakeTensor) or is_sharded(weight)  # fake where sizes are estimated
    return is_plain and weight.is_floating_point() and not weight.is_meta
