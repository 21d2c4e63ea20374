"""Whether adapters lie in one linear space: over one backbone, one A a layer, at one rank, beside heads of one shape.

All is checked before anything is computed, and what differs is named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.files.backbone import other_weight
from asym_lightning.adapters.files.directory import SavedAdapter, peft_scaling
from asym_lightning.adapters.files.redraw import CHECKSUM_TOLERANCE
from asym_lightning.core.messages import listed

_DECIDE_ON_A = ("scheme", "seed", "slot", "rank", "targets", "share_a", "share_expert_a", "rank_pattern")
_TO_JOIN = "join them by concatenation or projection, or train them with one `seed` and a frozen A"


def check_one_space(adapters: Sequence[SavedAdapter]) -> None:
    """Check that B's may be added up as they are.

    Args:
        adapters: What was read; each is compared with the first.

    Raises:
        ValueError: There is none, or two are of different backbones, layers, A's or ranks; the message says which.
    """
    check_one_model(adapters)
    first = adapters[0]
    for other in adapters[1:]:
        if first.is_compact != other.is_compact:
            compact, full = (first, other) if first.is_compact else (other, first)
            raise ValueError(
                f"`{compact.path}` leaves out its A's and `{full.path}` does not: save both in one form, with or "
                "without `--compact`."
            )
        for path in first.paths:
            ranks = [adapter.factors[f"{path}.lora_B"].shape[1] for adapter in (first, other)]
            if ranks[0] != ranks[1]:
                raise ValueError(
                    f"{_pair(first, other)} are of different ranks: `{path}` has {ranks[0]} and {ranks[1]}; {_TO_JOIN}."
                )
            if not _has_one_A(first, other, path):
                raise ValueError(
                    f"{_pair(first, other)} don't share A of `{path}` ({_reason(first, other)}); {_TO_JOIN}."
                )


def check_one_model(adapters: Sequence[SavedAdapter]) -> None:
    """Check that adapters are of one backbone and adapt the same layers, of the same shapes.

    Raises:
        ValueError: There is none, or two differ, or one has trained rows of tokens, which are no adapter.
    """
    if not adapters:
        raise ValueError("There is no adapter to combine: give at least one.")
    first = adapters[0]
    for adapter in adapters:
        if adapter.token_rows:
            raise ValueError(
                f"`{adapter.path}` holds trained rows of `{next(iter(adapter.token_rows))}` beside its factors, which "
                "have no A to share."
            )
    for other in adapters[1:]:
        if (reason := _other_backbone(first, other)) is not None:
            raise ValueError(f"{_pair(first, other)} are of different backbones: {reason}.")
        _check_same("adapt different layers", first, other, _layers(first), _layers(other))
        for path in {*first.paths} & {*other.paths}:
            shapes = [_outer_shape(adapter, path) for adapter in (first, other)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{_pair(first, other)} are of different backbones: `{path}` has factors of outer shape "
                    f"{shapes[0]} and {shapes[1]}."
                )


def check_one_kind_of_heads(adapters: Sequence[SavedAdapter]) -> None:
    """Check that heads can be averaged: the same tensors of the same shapes.

    Raises:
        ValueError: They can't; the message says that one adapter's heads may be taken.
    """
    first = adapters[0]
    for other in adapters[1:]:
        _check_same(
            "have different heads", first, other, first.others, other.others, advice="; take those of one: `heads_of`"
        )
        for name, tensor in first.others.items():
            if tensor.shape != other.others[name].shape:
                raise ValueError(
                    f"{_pair(first, other)} have different heads: `{name}` is {tuple(tensor.shape)} and "
                    f"{tuple(other.others[name].shape)}; take those of one: `heads_of`."
                )


def scaling_of(adapter: SavedAdapter, path: str) -> float:
    """What the ``B A`` of a layer, or of its slice in a compact directory, is multiplied by.

    Raises:
        ValueError: The directory is compact and has alphas by pattern, which only a model resolves.
    """
    if not adapter.is_compact:
        rank = adapter.factors[f"{path}.lora_B"].shape[1]
        return peft_scaling(adapter.peft_config, path.replace(".base_layer", ""), rank)
    config = _config(adapter)
    return config.scaling(config.rank, config.alpha)


def scaling_ratio(first: SavedAdapter, other: SavedAdapter, path: str) -> float:
    """By what a B of the other adapter is multiplied to be one of the first.

    Raises:
        ValueError: Compact directories with alphas by pattern differ in them.
    """
    if first.is_compact:
        ours, theirs = _config(first), _config(other)
        if ours.alpha_pattern != theirs.alpha_pattern or (ours.alpha_pattern and ours.alpha != theirs.alpha):
            raise ValueError(f"{_pair(first, other)} differ in `alpha` and have an `alpha_pattern`: save them in full.")
    here, there = scaling_of(first, path), scaling_of(other, path)
    return 1.0 if here == there else there / here


def _config(adapter: SavedAdapter) -> AdapterConfig:
    assert adapter.config is not None
    return AdapterConfig(**adapter.config)


def _layers(adapter: SavedAdapter) -> list[str]:
    """What is adapted, as a compact directory and a full one both say it."""
    if not adapter.is_compact:
        return adapter.paths
    return list(dict.fromkeys(path.rpartition(".")[0] for path in adapter.paths))


def _outer_shape(adapter: SavedAdapter, path: str) -> tuple[Any, ...]:
    A, B = (adapter.factors.get(f"{path}.lora_{factor}") for factor in "AB")
    assert B is not None
    return (B.shape[0], *B.shape[2:], None if A is None else tuple(A.shape[1:]))


def _other_backbone(first: SavedAdapter, other: SavedAdapter) -> str | None:
    """In what two backbones differ; by their weights where both directories know some, else by their names."""
    if first.backbone and other.backbone:
        name = other_weight(first.backbone, other.backbone)
        return None if name is None else (
            f"the weight of `{name}` starts with {first.backbone[name][0]:.6g} and {other.backbone[name][0]:.6g}"
        )  # fmt: skip
    for name in first.base.keys() & other.base.keys():
        if not torch.equal(first.base[name], other.base[name]):
            return f"`{name}` is another one"
    names = [adapter.peft_config.get("base_model_name_or_path") for adapter in (first, other)]
    return f"`{names[0]}` and `{names[1]}`" if all(names) and names[0] != names[1] else None


def _has_one_A(first: SavedAdapter, other: SavedAdapter, path: str) -> bool:
    ours, theirs = (adapter.factors.get(f"{path}.lora_A") for adapter in (first, other))
    if ours is not None and theirs is not None:
        return torch.equal(ours, theirs)
    left_out = [adapter.checksums[path] for adapter in (first, other) if path in adapter.checksums]
    return len(left_out) == 2 and abs(left_out[0] - left_out[1]) <= CHECKSUM_TOLERANCE


def _reason(first: SavedAdapter, other: SavedAdapter) -> str:
    """Why two A's are not one, as far as the directories tell."""
    ours, theirs = first.config, other.config
    if ours is None or theirs is None:
        return "A is not the same to the bit, as where it was trained"
    differing = [name for name in _DECIDE_ON_A if ours.get(name) != theirs.get(name)]
    if differing:
        return ", ".join(f"`{name}` is {ours.get(name)!r} and {theirs.get(name)!r}" for name in differing)
    trained = [adapter.path for adapter in (first, other) if _config(adapter).resolved_scheme.A.is_trained]
    if trained:
        return f"`{ours['scheme']}` trains A"
    return "they were drawn from other data, or grown or trained for a while"


def _check_same(
    what: str,
    first: SavedAdapter,
    other: SavedAdapter,
    ours: Collection[str] | Mapping[str, Any],
    theirs: Collection[str] | Mapping[str, Any],
    advice: str = "",
) -> None:
    for adapter, has, lacks in ((first, ours, theirs), (other, theirs, ours)):
        if extra := [f"`{name}`" for name in has if name not in lacks]:
            raise ValueError(f"{_pair(first, other)} {what}: only `{adapter.path}` has {listed(extra, 3)}{advice}.")


def _pair(first: SavedAdapter, other: SavedAdapter) -> str:
    return f"`{first.path}` and `{other.path}`"
