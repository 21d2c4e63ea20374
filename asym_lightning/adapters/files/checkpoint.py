"""What a training checkpoint has to hold, and whether one fits a model.

A checkpoint here is the dictionary that Lightning saves. :func:`fill_checkpoint` and :func:`restore_checkpoint` are all
that a module or a callback needs; the other functions are their parts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.files.beside import resized_embeddings
from asym_lightning.adapters.files.schema import first_not_finite, without_buffers
from asym_lightning.adapters.kernels import dropout
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name, factors_by_name
from asym_lightning.adapters.surgery.quantize import QuantizedPart, quantized_state_names
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.dtensor import first_numbers, is_sharded, sharded_like
from asym_lightning.core.kinds import Count, check_fields
from asym_lightning.core.messages import listed
from asym_lightning.core.names import load_plain_state, plain_name, plain_state
from asym_lightning.core.random_state import random_state, set_random_state

STATE_KEY = "state_dict"
DESCRIPTION_KEY = "adapter_description"
RANDOM_STATE_KEY = "random_state"
_DROPOUT_KEY = "dropout"  # in the random state: what draws the adapters' dropout
_NUM_SAMPLED = 8
_TOLERANCE = (2e-2, 1e-4)  # relative and absolute, for a backbone kept in bfloat16 then and in float32 now
_DESCRIPTION_FIELDS: Mapping[str, Any] = {
    "config": Mapping[str, Any] | None,
    "ranks": Mapping[str, Count],
    "backbone": Mapping[str, list[float]],
    "quantization": list[str],
}


def fill_checkpoint(module: nn.Module, checkpoint: MutableMapping[str, Any]) -> None:
    """Leave in a checkpoint what was trained, and add a description of the adapters and the random state.

    The random state is what makes a resumed run with dropout or shuffling exact. It is that of the process that saves.

    Args:
        module: The module whose checkpoint it is.
        checkpoint: A dictionary with the state dict, whole, under ``state_dict``.

    Raises:
        ValueError: A parameter holds NaN or infinity.
    """
    state = trained_state_dict(module, checkpoint[STATE_KEY])
    if (name := first_not_finite(without_buffers(module, state))) is not None:
        raise ValueError(
            f"`{name}` holds NaN or infinity: the run has diverged, and no checkpoint is written of it; earlier ones "
            "are as they were. Train at a lower rate, or in a wider precision."
        )
    checkpoint[STATE_KEY] = state
    checkpoint[DESCRIPTION_KEY] = adapter_description(module)
    checkpoint[RANDOM_STATE_KEY] = random_state_of(module)


def restore_checkpoint(module: nn.Module, checkpoint: MutableMapping[str, Any]) -> None:
    """Check that a checkpoint fits and load it, and leave in it the whole state dict, which loads strictly.

    The random state stays in ``checkpoint["random_state"]`` for :func:`restore_random_state`.

    Raises:
        ValueError: The checkpoint is of another backbone, configuration or head, or incomplete; the message says what
            was expected and found. Nothing is loaded then.
    """
    state = checkpoint[STATE_KEY]
    if DESCRIPTION_KEY in checkpoint:
        check_adapter_description(module, checkpoint[DESCRIPTION_KEY])
        state = {**_extra_states(module, checkpoint[DESCRIPTION_KEY].get("ranks", {})), **state}
    load_trained_state_dict(module, state)
    # Not the scales of a quantised backbone: bitsandbytes writes them and does not read them.
    scales = quantized_state_names(module, with_weights=False)
    checkpoint[STATE_KEY] = {
        name: tensor for name, tensor in module.state_dict().items() if plain_name(name) not in scales
    }


def random_state_of(module: nn.Module) -> dict[str, Any]:
    """The random state of this process, and what draws the drops of the module's adapters from it."""
    return {**random_state(), _DROPOUT_KEY: _draws_dropout(module)}


def restore_random_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Draw on where the run that saved left off; to be called when training is about to go on, on its device.

    Where kernels are here that were not there, or the other way round, the same state drops other entries of the
    adapters' inputs, which is warned of.

    Args:
        module: The module whose checkpoint it is.
        state: The checkpoint's ``random_state``.
    """
    set_random_state(state)
    here = _draws_dropout(module)
    there = state.get(_DROPOUT_KEY, here)
    if here != there:
        warnings.warn(
            f"The checkpoint is of a run whose adapter dropout was drawn by {there}, and here it is drawn by {here}: "
            "the run goes on with other drops than it would have had.",
            stacklevel=2,
        )


def adapter_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The factors A and B of every adapter under their plain names in ``model``, and nothing else.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    >>> list(adapter_state_dict(model))
    ['0.adapters.all.factor_A', '0.adapters.all.factor_B']
    """
    state = plain_state(model)
    return {name: _own_storage(state[name]) for name in factors_by_name(model)}


def trained_state_dict(module: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All that training may have changed: adapters, every trained parameter, buffers; never the frozen backbone.

    Args:
        module: The module whose checkpoint it is; it may contain the adapted backbone anywhere.
        state: Its state dict where that is at hand already, e.g. gathered from shards.
    """
    state = plain_state(module) if state is None else {plain_name(name): tensor for name, tensor in state.items()}
    frozen = frozen_names(module)
    return {name: _own_storage(tensor) for name, tensor in state.items() if name not in frozen}


def check_trained_state_dict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that a :func:`trained_state_dict` fits; the frozen backbone may be missing, anything else may not.

    Raises:
        ValueError: A key is missing, unexpected, or of another shape; the message says what was expected and found.
    """
    own = plain_state(module)
    expected = trained_state_dict(module, own)
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        parts = [
            f"{what} {listed([f'`{n}`' for n in names], 2)}"
            for what, names in (("lacks", missing), ("has unknown", unexpected))
            if names
        ]
        raise ValueError(
            f"The checkpoint does not fit the model: it {' and '.join(parts)}; was it written with another backbone, "
            "adapter configuration or head?"
        )
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) != isinstance(own[name], Tensor):
            raise ValueError(f"The checkpoint does not fit the model: `{name}` should be {_kind(own[name])}.")
        if not isinstance(tensor, Tensor):
            continue
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"The checkpoint does not fit the model: `{name}` should be {tuple(own[name].shape)}, found "
                f"{tuple(tensor.shape)}; was it written with another rank or head?"
            )
        kinds = [(t.is_floating_point(), t.is_complex()) for t in (tensor, own[name])]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"The checkpoint does not fit the model: `{name}` should be {_kind(own[name])}, found {_kind(tensor)}."
            )
    if (diverged := first_not_finite(without_buffers(module, state))) is not None:
        raise ValueError(
            f"The checkpoint holds NaN or infinity in `{diverged}`: the run diverged; take an earlier checkpoint."
        )


def load_trained_state_dict(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a :func:`trained_state_dict`, after :func:`check_trained_state_dict`."""
    check_trained_state_dict(module, state)
    own = plain_state(module)
    load_plain_state(module, {n: sharded_like(t, own[n]) if isinstance(t, Tensor) else t for n, t in state.items()})


def adapter_description(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint says of the model beside its tensors: configuration, ranks, and a sample of the frozen weights.

    Plain numbers, strings, lists and dicts, so that ``torch.load(weights_only=True)`` reads it.
    """
    layers = adapter_layers(model)
    config = next(iter(layers.values())).adapters.config.to_dict() if layers else None
    ranks = {name: adapter.rank for name, adapter in adapters_by_name(model).items()}
    return {
        "config": config,
        "ranks": ranks,
        "backbone": _sample_frozen(model),
        "quantization": list(QuantizedPart.of(model).kinds),
    }


def check_adapter_description(model: nn.Module, found: Mapping[str, Any]) -> None:
    """Check that a checkpoint's :func:`adapter_description` is of this model.

    Raises:
        ValueError: Another configuration or another backbone; the message says what was expected and found.
    """
    try:
        check_fields("it", found, _DESCRIPTION_FIELDS, ("config", "backbone"))
        if found["config"] is not None:
            check_fields("its `config`", found["config"], {}, ("scheme", "rank"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The checkpoint is damaged: in its `{DESCRIPTION_KEY}`, {error}") from error
    expected = adapter_description(model)
    old, new = found["config"], expected["config"]
    if (old is None) != (new is None):
        has, lacks = ("the checkpoint", "the model") if new is None else ("the model", "the checkpoint")
        raise ValueError(f"The checkpoint does not fit the model: {has} has adapters, {lacks} has none.")
    # How a layer computes is no property of what was trained.
    changed = [k for k in new or () if k != "path" and k in old and old[k] != new[k]]
    if changed:
        details = "; ".join(f"`{key}` should be {new[key]!r}, found {old[key]!r}" for key in changed)
        raise ValueError(f"The checkpoint was written with another adapter configuration: {details}.")
    was, now = found.get("quantization", []), expected["quantization"]
    if was != now:
        raise ValueError(
            f"The checkpoint was written over a backbone that is {_quantized_to(was)}, this one is "
            f"{_quantized_to(now)}."
        )
    for name, values in found["backbone"].items():
        here = expected["backbone"].get(name)
        if here is None:
            raise ValueError(f"The checkpoint was written with another backbone: `{name}` is not in this one.")
        is_alike = len(values) == len(here) and torch.allclose(torch.tensor(values), torch.tensor(here), *_TOLERANCE)
        if not is_alike:
            raise ValueError(
                f"The checkpoint was written with another backbone: frozen `{name}` starts with {here[0]:.6g} here and "
                f"with {values[0] if values else math.nan:.6g} there."
            )


def frozen_names(module: nn.Module) -> set[str]:
    """Names in a state dict of what no checkpoint holds: frozen parameters but the adapters', and quantised scales."""
    factors = {id(p) for p in factors_by_name(module).values()}
    frozen = {
        plain_name(name)
        for name, p in module.named_parameters(remove_duplicate=False)
        if not p.requires_grad and id(p) not in factors
    }
    return (frozen | quantized_state_names(module)) - _in_modules(module, resized_embeddings(module))


def _extra_states(module: nn.Module, ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """The ranks as a state dict has them; a module's own hook may leave out all extra states, whose ever they are."""
    return {
        f"{name}.adapters.{part}._extra_state".removeprefix("."): torch.tensor(ranks[f"{name}.{part}"])
        for name, layer in adapter_layers(module).items()
        for part in layer.adapters
        if f"{name}.{part}" in ranks
    }


def _in_modules(module: nn.Module, names: Sequence[str]) -> set[str]:
    return {name for name in plain_state(module) if is_within(name, names)} if names else set()


def _sample_frozen(model: nn.Module) -> dict[str, list[float]]:
    """The first few numbers of some frozen matrices, evenly spread over the model."""
    frozen = frozen_names(model)
    named = ((plain_name(name), p) for name, p in model.named_parameters())
    matrices = {n: p for n, p in named if n in frozen and p.dim() > 1 and _is_readable(p)}
    names = list(matrices)[:: max(len(matrices) // _NUM_SAMPLED, 1)][:_NUM_SAMPLED]
    return {name: first_numbers(matrices[name], 8).float().tolist() for name in names}


def _draws_dropout(module: nn.Module) -> str | None:
    """What draws the dropout of a module's adapters; ``None`` where they have none."""
    layers = [layer for layer in adapter_layers(module).values() if layer.adapters.config.dropout]
    if not layers:
        return None
    if layers[0].adapters.config.path == "plain":
        return "torch.nn.functional.dropout"
    return dropout.implementation(next(layers[0].adapters.parameters()).device)


def _is_readable(parameter: Tensor) -> bool:
    """Whether its numbers can be read: not on the meta device, not packed."""
    is_plain = type(parameter) is nn.Parameter or is_sharded(parameter)
    return is_plain and parameter.device.type != "meta" and parameter.is_floating_point()


def _own_storage(tensor: Tensor) -> Tensor:
    """The tensor, cloned where it is a view of more (as of ``[W; A]``), for ``torch.save`` writes whole storages."""
    if not isinstance(tensor, Tensor) or is_sharded(tensor) or tensor.untyped_storage().nbytes() <= tensor.nbytes:
        return tensor
    return tensor.clone()


def _kind(value: Any) -> str:
    return f"a tensor of {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else "no tensor"


def _quantized_to(kinds: list[str]) -> str:
    return f"quantised to {' and '.join(kinds)}" if kinds else "not quantised"
