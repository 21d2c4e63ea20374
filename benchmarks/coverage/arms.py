"""The two libraries behind one face: adapt a model, merge, unmerge, remove, save and load."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from asym_lightning.adapters import (
    AdaptedLayer,
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    unmerge_adapters,
)

RANK, ALPHA = 4, 8.0


class Matrix:
    """One adapted parameter of the backbone.

    Args:
        owner: Name of the module that holds it, in the backbone as it was.
        parameter: Its name there.
        delta: The update in the parameter's shape, as a differentiable function of ``factors``.
        factors: The trained factors.
    """

    def __init__(self, owner: str, parameter: str, delta: Callable[[], Tensor], factors: list[nn.Parameter]) -> None:
        self.owner, self.parameter, self.delta, self.factors = owner, parameter, delta, factors

    def __str__(self) -> str:
        return f"{self.owner}.{self.parameter}".removeprefix(".")


class Arm(Protocol):
    """What a library has to do; models are changed in place and given back, for `peft` wraps them."""

    def adapt(self, model: nn.Module, targets: str) -> nn.Module: ...
    def matrices(self, model: nn.Module) -> list[Matrix]: ...
    def merge(self, model: nn.Module) -> nn.Module: ...
    def unmerge(self, model: nn.Module) -> nn.Module: ...
    def remove(self, model: nn.Module) -> nn.Module: ...
    def save(self, model: nn.Module, directory: Path) -> None: ...
    def load(self, model: nn.Module, directory: Path) -> nn.Module: ...


class Ours:
    """This library, B alone trained."""

    def adapt(self, model: nn.Module, targets: str) -> nn.Module:
        inject_adapters(model, _our_config(targets))
        return model

    def matrices(self, model: nn.Module) -> list[Matrix]:
        found = []
        names = {id(module): name for name, module in model.named_modules()}
        for layer in adapter_layers(model).values():
            (parameter,) = layer.updates()
            factors = [adapter.factor_B for adapter in layer.adapters.values()]
            owner = names[id(layer.holder())]
            found.append(Matrix(owner, parameter, lambda layer=layer: _our_delta(layer), factors))
        return found

    def merge(self, model: nn.Module) -> nn.Module:
        merge_adapters(model)
        return model

    def unmerge(self, model: nn.Module) -> nn.Module:
        unmerge_adapters(model)
        return model

    def remove(self, model: nn.Module) -> nn.Module:
        remove_adapters(model)
        return model

    def save(self, model: nn.Module, directory: Path) -> None:
        save_adapters(model, directory)

    def load(self, model: nn.Module, directory: Path) -> nn.Module:
        load_adapters(model, directory)
        return model


def unplayed(model: nn.Module, role: str) -> Sequence[str]:
    """What attends without it, as the report of this library says of a model that is adapted with one role."""
    return inject_adapters(model, _our_config(role)).unplayed.get(role, ())


def _our_config(targets: str) -> AdapterConfig:
    return AdapterConfig(rank=RANK, alpha=ALPHA, targets=targets.split())


def _our_delta(layer: AdaptedLayer) -> Tensor:
    """``s B A`` written out, in the weight's shape."""
    (parameter,) = layer.updates()
    shape = layer.holder()._parameters[parameter].shape
    is_transposed = isinstance(layer, nn.Embedding) or getattr(layer, "is_transposed", layer.fan_in_fan_out)
    if is_transposed:
        shape = (*shape[:-2], shape[-1], shape[-2])
    # Of experts all rows, one after another.
    d_in = shape[-1] if type(layer).__name__ == "AdaptedExpertMatrix" else math.prod(shape[1:])
    delta = torch.zeros(math.prod(shape) // d_in, d_in, dtype=layer.holder()._parameters[parameter].dtype)
    for name, adapter in layer.adapters.items():
        index = layer.adapters.rows[name].take(torch.arange(len(delta)))
        delta = delta.index_add(0, index, ALPHA / RANK * adapter.factor_B @ adapter.factor_A)
    delta = delta.view(shape)
    return delta.mT if is_transposed else delta


class Peft:
    """The `peft` package, A and B trained."""

    def adapt(self, model: nn.Module, targets: str) -> nn.Module:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=RANK, lora_alpha=ALPHA, **_peft_targets(model, targets))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_peft_model(model, config)

    def matrices(self, model: nn.Module) -> list[Matrix]:
        from peft.tuners.lora import LoraLayer
        from peft.tuners.lora.layer import ParamWrapper

        found = []
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer) and "default" in layer.lora_B:
                owner = name.removeprefix("base_model.model").removeprefix(".")
                parameter = layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"
                while owner.endswith(".base_layer"):
                    owner = owner.removesuffix(".base_layer")
                factors = [layer.lora_B["default"].weight]
                found.append(Matrix(owner, parameter, lambda layer=layer: layer.get_delta_weight("default"), factors))
        return found

    def merge(self, model: nn.Module) -> nn.Module:
        return model.merge_and_unload()

    def unmerge(self, model: nn.Module) -> nn.Module:
        raise NotImplementedError

    def remove(self, model: nn.Module) -> nn.Module:
        return model.unload()

    def save(self, model: nn.Module, directory: Path) -> None:
        model.save_pretrained(str(directory))

    def load(self, model: nn.Module, directory: Path) -> nn.Module:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return PeftModel.from_pretrained(model, str(directory))


def _peft_targets(model: nn.Module, targets: str) -> dict[str, object]:
    """All linear layers and, as its documentation advises, experts by their parameters; or what it has as default."""
    if targets != "all-linear":
        return {}
    experts = [name for name, p in model.named_parameters() if p.dim() == 3 and ".experts." in f".{name}"]
    return {"target_modules": "all-linear", **({"target_parameters": experts} if experts else {})}


ARMS: dict[str, Arm] = {"ours": Ours(), "peft": Peft()}
