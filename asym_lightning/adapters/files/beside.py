"""What is saved of a model beside its adapters: all that is not as it was in the backbone that they were made for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.layers.lookup import adapter_layers, factors_by_name
from asym_lightning.adapters.layers.token_rows import CHILD
from asym_lightning.adapters.surgery.buffers import changed_buffers
from asym_lightning.adapters.surgery.freeze import trainable_parameters
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.messages import listed
from asym_lightning.core.names import plain_modules, plain_name, submodule


def modules_beside(model: nn.Module, config: AdapterConfig) -> list[str]:
    """Names of the modules that are saved whole: heads that train, and whatever else has changed or trains.

    Args:
        model: An adapted model.
        config: What it was adapted by.

    Raises:
        RuntimeError: Something that trains or has changed is in no module of its own that could be saved.
    """
    heads = find_heads(model, config.heads)
    saved = [h for h in heads if any(p.requires_grad for p in submodule(model, h).parameters())]
    factors = factors_by_name(model)
    in_saved = {id(p) for head in saved for p in submodule(model, head).parameters()}  # under other names, too
    trained = [plain_name(name) for name, parameter in trainable_parameters(model) if id(parameter) not in in_saved]
    changed = [name for name in trained if name not in factors] + changed_buffers(model)
    owners = {name: name.rpartition(".")[0] for name in changed if not is_within(name, saved)}
    adapted = list(adapter_layers(model))
    lost = [name for name, owner in owners.items() if not owner or any(is_within(layer, [owner]) for layer in adapted)]
    if lost:
        raise RuntimeError(
            f"{listed([f'`{name}`' for name in lost], 3)} would be lost: it trains or has changed, and an adapter "
            "directory has a place for adapters and for whole modules without any alone; freeze it, or keep "
            "`trained_state_dict(model)` instead."
        )
    saved += [*owners.values(), *resized_embeddings(model)]
    # One within another is saved with it.
    names = dict.fromkeys(name for name in saved if not is_within(name.rpartition(".")[0], saved))
    return [part for name in names for part in _callable_parts(name, submodule(model, name))]


def resized_embeddings(model: nn.Module) -> list[str]:
    """Names of the layers of models of transformers that have other tokens than what they were read from.

    New rows are drawn where a vocabulary is resized, so that nobody would have them again.
    """
    found: list[str] = []
    for prefix, module in plain_modules(model):
        if hasattr(module, "get_input_embeddings") and _has_other_tokens(getattr(module, "config", None)):
            layers = [module.get_input_embeddings(), module.get_output_embeddings()]  # type: ignore[operator]
            found += [
                f"{prefix}.{name}".removeprefix(".")
                for name, layer in plain_modules(module)
                if any(layer is own for own in layers) and not _holds_new_rows(name, layer, module.config)
            ]
    return list(dict.fromkeys(found))


def _holds_new_rows(name: str, layer: nn.Module, config: Any) -> bool:
    """Whether the rows that a vocabulary grew by are trained one by one, and so kept without the others.

    Raises:
        RuntimeError: Some of them are, and others not.
    """
    rows: Any = getattr(layer, CHILD, None)
    if rows is None:
        return False
    kind: Any = type(config)
    source = _num_tokens(_source_of(kind, config.name_or_path))
    lost = sorted(set(range(source or 0, len(rows.places))) - {*rows.indices})
    if lost:
        raise RuntimeError(
            f"The rows {listed([str(index) for index in lost], 4)} of `{name}` are new too, and would be lost: "
            "`token_rows` must name all of them."
        )
    return True


def _has_other_tokens(config: Any) -> bool:
    """Whether a configuration of transformers differs in its vocabulary from the file that it was read from."""
    if not getattr(config, "name_or_path", None) or not hasattr(config, "get_text_config"):
        return False
    kind: Any = type(config)
    source = _source_of(kind, config.name_or_path)
    return source is not None and _num_tokens(config) != _num_tokens(source)


@functools.cache  # every checkpoint asks, more than once
def _source_of(kind: Any, name: str) -> Any:
    """The configuration in the file that one of transformers was read from; ``None`` where it is not there any more."""
    try:
        return kind.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return None


def _num_tokens(config: Any) -> int | None:
    return getattr(config.get_text_config(), "vocab_size", None)


def _callable_parts(name: str, module: nn.Module) -> Iterator[str]:
    """A module, or what is in it where it is a list: PEFT wraps only what is called."""
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return iter([name])
    return (part for own, child in module.named_children() for part in _callable_parts(f"{name}.{own}", child))
