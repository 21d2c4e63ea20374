"""Put adapters into a model, and take them out again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.init.statistics import Data
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.adapters.layers.slices import SliceAdapters
from asym_lightning.adapters.layers.token_rows import attach, remove_token_rows, reset_token_rows
from asym_lightning.adapters.surgery.buffers import forget_buffers, note_buffers
from asym_lightning.adapters.surgery.freeze import freeze_backbone, trainable_parameters
from asym_lightning.adapters.surgery.merge import merged_layers, unmerge_adapters
from asym_lightning.adapters.surgery.quantize import prepare_quantized
from asym_lightning.adapters.surgery.recomputed import ask_for_input_gradients, forget_input_gradients
from asym_lightning.adapters.surgery.report import InjectionReport
from asym_lightning.adapters.targets.bypasses import close_bypass, open_bypasses, read_layers
from asym_lightning.adapters.targets.find import Found, Target, find_targets, resolve_pattern
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.adapters.targets.token_rows import find_token_rows
from asym_lightning.adapters.targets.unplayed import unplayed_roles
from asym_lightning.core.dtensor import whole
from asym_lightning.core.dtypes import train_in_float32
from asym_lightning.core.messages import listed


def inject_adapters(
    model: nn.Module,
    config: AdapterConfig,
    *,
    statistics: Mapping[str, Data] | None = None,
    draw: bool = True,
) -> InjectionReport:
    """Adapt a model in place: add adapters to the layers that ``config`` names and freeze all else but the heads.

    Calling it again with the same configuration changes nothing.

    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    >>> report = inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=["1"]))
    >>> report.trainable, report.total
    (34, 122)
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['0.adapters.all.factor_B', '1.weight', '1.bias']

    Args:
        model: The backbone, or any module that contains it. Layers go by their names in it.
        config: What to adapt and how.
        statistics: Of calibration batches, for init rules that draw from data, or rows that were drawn from them
            before, of which as many are taken as there are to be: by ``layer.slice``, as in the names of
            :func:`adapters_by_name`, or by ``layer.shared`` where slices share one A.
        draw: ``False`` leaves every factor zero, for :func:`reset_adapters` or a file to fill.

    Returns:
        What was done; ``str(report)`` is a table.

    Raises:
        ValueError: A target matches nothing or can't be adapted, a rank is larger than a layer allows, or an init rule
            draws from data and there are no statistics of a layer.
        RuntimeError: The model is adapted by another configuration, or its adapters are merged.
    """
    present = adapter_layers(model)
    if present:
        _check_same_config(next(iter(present.values())).adapters.config, config)
        heads = find_heads(model, config.heads)
        return _report(model, config, heads, find_targets(model, config, heads))
    if any(True for _ in merged_layers(model)):
        raise RuntimeError(
            "The model's adapters are merged; call `unmerge_adapters` or `remove_adapters` before injecting."
        )
    heads = find_heads(model, config.heads)
    prepare_quantized(model, heads)
    found = find_targets(model, config, heads)
    targets = found.targets
    read = read_layers(model, [target.name for target in targets])
    # All is built, hence checked, before the first layer is touched.
    built, sizes = [], [_sizes(target, config) for target in targets]
    _check_sizes(sizes)
    for target, of_target in zip(targets, sizes, strict=True):
        weight = target.weight
        built.append(_build(target, weight, config, of_target, is_read=target.kind.is_read or target.name in read))
        if draw and not weight.is_meta:
            built[-1].reset_parameters(weight, statistics)
    _check_patterns_used(config, targets)
    _check_rank_used(config, built)
    for rows, layers in find_token_rows(model, config.token_rows, [target.name for target in targets], heads):
        for layer in layers:
            attach(layer, rows)
    heads = find_heads(model, config.heads)
    freeze_backbone(model, heads)
    opened = open_bypasses(model, [target.name for target in targets])
    for target, adapters in zip(targets, built, strict=True):
        adapters.has_opened_bypass = target.name in opened
        target.kind.adapt_host(target.layer, adapters)
    if any(p.is_floating_point() and p.dtype.itemsize < 4 for _, p in trainable_parameters(model)):
        train_in_float32(model, model)
    ask_for_input_gradients(model)
    note_buffers(model)
    return _report(model, config, heads, found)


def reset_adapters(model: nn.Module, *, statistics: Mapping[str, Data] | None = None, draw: bool = True) -> None:
    """Draw all factors anew, as after building on the meta device and loading the weights.

    Where the model is sharded, every process has to call it.

    Args:
        model: An adapted model.
        statistics: As for :func:`inject_adapters`.
        draw: ``False`` makes every factor zero.

    Raises:
        ValueError: An init rule draws from data and there are no statistics of a layer.
    """
    reset_token_rows(model)
    for layer in adapter_layers(model).values():
        if not draw:
            for parameter in layer.adapters.parameters():
                parameter.detach().zero_()
            continue
        weight = layer.weight_matrix()
        needs_weight = layer.adapters.config.resolved_scheme.needs_weight
        layer.adapters.reset_parameters(whole(weight) if needs_weight else weight, statistics)


def undrawn_adapters(model: nn.Module) -> list[str]:
    """Adapters whose A is drawn from data and has not been yet: it is zero, and B would never move.

    Where the model is sharded, every process has to call it.
    """
    return [
        name
        for name, adapter in adapters_by_name(model).items()
        if adapter.scheme.A.rule.needs_data and not whole(adapter.factor_A).any()
    ]


def remove_adapters(model: nn.Module) -> None:
    """Take the adapters out: every layer has its class, keys and weight (to the bit) back. Parameters stay frozen."""
    unmerge_adapters(model)
    for name, layer in adapter_layers(model).items():
        if layer.adapters.has_opened_bypass:
            close_bypass(model, name)
        layer.restore_host()
    remove_token_rows(model)
    forget_input_gradients(model)
    forget_buffers(model)


def _report(model: nn.Module, config: AdapterConfig, heads: Sequence[str], found: Found) -> InjectionReport:
    unplayed = unplayed_roles(model, config.targets, found)
    return InjectionReport.of(
        model, adapter_layers(model), heads, left_out=found.left_out, unplayed=unplayed, derived=found.derived
    )


class _Size(NamedTuple):
    """The ranks of a slice's adapter, its scaling, and where the configuration asks for more than the layer allows."""

    rank: int
    max_rank: int
    scaling: float
    asked: str | None
    layer: str
    allowed: str


def _sizes(target: Target, config: AdapterConfig) -> dict[str, _Size]:
    d_in = target.weight.shape[1]
    narrowest = min(rows.count for rows in target.rows.values())
    sizes: dict[str, _Size] = {}
    for name, rows in target.rows.items():
        rank, source = resolve_pattern(config.rank_pattern, target, name, config.rank)
        alpha, _ = resolve_pattern(config.alpha_pattern, target, name, config.alpha)
        max_rank = max(rank, config.max_rank or rank) if target.kind.can_change_rank else rank
        scaling = config.scaling(rank, alpha)
        largest = min(narrowest if _shares_a(target, config) else rows.count, d_in)
        if max_rank > largest and not target.is_named and not (source and rank > largest):
            # One of all that `all-linear` means: as much as it allows, at the strength of the others.
            rank, max_rank = min(rank, largest), largest
        asked = None
        if rank > largest:
            asked = f"`rank_pattern[{source!r}]` is {rank}" if source else f"`rank` is {rank}"
        elif max_rank > largest:
            asked = f"`max_rank` is {max_rank}"
        allowed = f"is {rows.count} x {d_in} and allows at most {largest}"
        has_seeded_slots = config.resolved_scheme.A.rule.has_seeded_slots
        if asked is None and has_seeded_slots and (config.slot + 1) * max_rank > d_in:
            asked = f"`slot` is {config.slot}"
            allowed = f"has {d_in} inputs and room for slots 0 to {d_in // max_rank - 1} of rank {max_rank}"
        sizes[name] = _Size(rank, max_rank, scaling, asked, target.name, allowed)
    return sizes


def _shares_a(target: Target, config: AdapterConfig) -> bool:
    return config.share_a and len(target.rows) > 1


def _check_sizes(sizes: Sequence[Mapping[str, _Size]]) -> None:
    """Check that every layer allows its ranks.

    Raises:
        ValueError: Some don't; the message names the first of them.
    """
    refused: dict[str, dict[tuple[str, str], list[str]]] = {}
    for name, size in (item for of_target in sizes for item in of_target.items()):
        if size.asked:
            refused.setdefault(size.asked, {}).setdefault((size.layer, size.allowed), []).append(f"({name})")
    if refused:
        sentences = []
        for asked, layers in refused.items():
            described = [
                f"`{layer}` {first} {allowed}{', like ' if others else ''}{', '.join(others)}"
                for (layer, allowed), (first, *others) in layers.items()
            ]
            sentences.append(f"{asked}, but {listed(described, 2)}")
        is_one = sum(len(slices) for layers in refused.values() for slices in layers.values()) == 1
        cure = "" if is_one else "; give these smaller ranks in `rank_pattern`, or name them in `exclude`"
        raise ValueError(f"{'; '.join(sentences)}{cure}.")


def _build(
    target: Target, weight: Tensor, config: AdapterConfig, sizes: Mapping[str, _Size], *, is_read: bool
) -> SliceAdapters:
    if config.path in ("packed", "formed") and not target.kind.has_dense_weight:
        raise ValueError(
            f"Path {config.path!r} needs a dense weight, and that of `{target.name}` is quantised; use 'two_gemm' or "
            "'auto'."
        )
    d_in = weight.shape[1]
    # Low-precision weights get float32 factors: B starts at zero and its first steps would be lost in bfloat16.
    dtype = torch.float32 if weight.dtype.itemsize < 4 else weight.dtype
    shares_a = _shares_a(target, config)
    adapters: dict[str, LowRankAdapter] = {}
    for name, rows in target.rows.items():
        key, size = f"{target.name}.{name}", sizes[name]
        adapters[name] = LowRankAdapter(
            rows.count,
            d_in,
            rank=size.rank,
            max_rank=size.max_rank,
            scaling=size.scaling,
            scheme=config.resolved_scheme,
            key=key,
            A_key=f"{target.name}.shared" if shares_a else key,
            seed=config.seed,
            slot=config.slot,
            device=weight.device,
            dtype=dtype,
        )
    if shares_a:
        first, *others = adapters.values()
        if any(other.rank != first.rank for other in others):
            raise ValueError(f"`share_a` needs one rank for all slices of `{target.name}`, got different ones.")
        for other in others:
            other.factor_A = first.factor_A
    return SliceAdapters(adapters, target.rows, config, is_read=is_read)


def _check_same_config(old: AdapterConfig, new: AdapterConfig) -> None:
    if new.max_rank is None:  # who asks for no room does not mind any, such as that of a schedule that has grown
        old = dataclasses.replace(old, max_rank=None)
    if old != new:
        changed = [k for k, v in new.to_dict().items() if old.to_dict()[k] != v]
        raise RuntimeError(
            "The model is already adapted by another configuration (different: "
            f"{', '.join(f'`{name}`' for name in changed)}); call `remove_adapters` first."
        )


def _check_rank_used(config: AdapterConfig, built: Sequence[SliceAdapters]) -> None:
    ranks = [adapter.rank for adapters in built for adapter in adapters.values()]
    if not config.rank_pattern and max(ranks) < config.rank:
        raise ValueError(
            f"`rank` is {config.rank}, but each of the layers that `targets` mean allows at most {max(ranks)}."
        )


def _check_patterns_used(config: AdapterConfig, targets: Sequence[Target]) -> None:
    for field in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, field)
        used = {resolve_pattern(pattern, target, name, None)[1] for target in targets for name in target.rows}
        unused = [key for key in pattern if key not in used]
        if unused:
            raise ValueError(
                f"`{field}` key {unused[0]!r} matches no adapted layer, or an earlier key comes before it."
            )
