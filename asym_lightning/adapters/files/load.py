"""Load adapter directories, of ours or of `peft`, full or compact, into a model; :mod:`.save` has the format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.files import token_rows
from asym_lightning.adapters.files.directory import CONFIG_FILE, SavedAdapter, peft_scaling, read_adapter
from asym_lightning.adapters.files.old_names import under_present_names
from asym_lightning.adapters.files.redraw import CHECKSUM_TOLERANCE, checksum, redraw_A
from asym_lightning.adapters.files.schema import MAX_RANK, check_finite, without_buffers
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import host_kind, layers_of
from asym_lightning.adapters.layers.lookup import adapter_layers, adapters_by_name
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.adapters.surgery.inject import inject_adapters, remove_adapters
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.adapters.targets.patterns import is_within
from asym_lightning.core.dtensor import sharded_like, whole
from asym_lightning.core.names import plain_modules, plain_state, submodule

# What `peft` writes that says nothing of the update, or is read here, or matters only with a feature that is refused.
_UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_dropout", "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "target_parameters", "task_type",
    "trainable_token_indices", "use_rslora",
}  # fmt: skip
_DECIDE_ON_SCALING = ("rank", "alpha", "rank_pattern", "alpha_pattern", "rank_stabilized")
# Inits that leave the base weight as it is; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) change it.
_PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")


def load_adapters(model: nn.Module, directory: str | Path) -> None:
    """Load an adapter directory of ours or of `peft` into ``model``, which is adapted first where it is not yet.

    Everything is checked before the first number changes.

    Args:
        model: The model that the adapter was trained for, adapted or not.
        directory: The adapter's directory, or that of the run that it is in.

    Raises:
        FileNotFoundError: There is no adapter in ``directory``.
        ValueError: A file is damaged, holds features that are not LoRA's, or does not fit the model; the message names
            file or layer, what was expected and what was found.
    """
    saved = read_for(model, directory)
    config = config_of(saved, model)
    was_adapted = bool(adapter_layers(model))
    if not was_adapted:
        trainable = {name: p.requires_grad for name, p in model.named_parameters()}
        inject_adapters(model, config, draw=False)
    try:
        _assign(model, saved)
    except Exception:
        if not was_adapted:
            remove_adapters(model)
            for name, p in model.named_parameters():
                p.requires_grad_(trainable[name])
        raise


def swap_adapters(model: nn.Module, directory: str | Path) -> None:
    """Put the B's, and the heads, of another adapter directory that shares its A's in place of those of ``model``.

    Many adapters that were trained over one frozen A are so exchanged in an instant: only B's are written, in place, so
    that compiled graphs and optimizers stay (the state of an optimizer is that of the B's before).

    Args:
        model: An adapted model.
        directory: The adapter's directory, or that of the run that it is in.

    Raises:
        FileNotFoundError: There is no adapter in ``directory``.
        RuntimeError: The model has no adapters, or they are merged.
        ValueError: As for :func:`load_adapters`, or an A is another, to the last bit. Nothing is changed then.
    """
    if not adapter_layers(model):
        raise RuntimeError("The model has no adapters to swap (merged ones must be unmerged first): load some first.")
    saved = read_for(model, directory)
    config_of(saved, model)
    _assign(model, saved, keeps_A=True)


def read_for(model: nn.Module, directory: str | Path) -> SavedAdapter:
    """Read a directory under the names that a model has now, with rows of tokens as heads."""
    return token_rows.as_heads(under_present_names(read_adapter(directory), model))


def config_of(saved: SavedAdapter, model: nn.Module) -> AdapterConfig:
    """The configuration that the adapter was saved with; where `peft` wrote it, whole layers with both factors trained.

    Raises:
        ValueError: It has features that are not LoRA's.
    """
    if saved.config is not None:
        return AdapterConfig(**saved.config)
    _refuse_what_is_not_understood(saved)
    peft_config = saved.peft_config
    places = {path: _own_name(path, model, saved) for path in saved.paths}
    # Longest first: a name may be the suffix of another, and the first match in a pattern counts.
    paths = sorted(places, key=lambda path: len(places[path]), reverse=True)
    ranks = {path: _peft_rank(path, model, saved) for path in paths if f"{path}.lora_A" in saved.factors}
    layers = layers_of(model)
    allowed = {path: min(rank, _largest_rank(layers.get(places[path]))) for path, rank in ranks.items()}
    return AdapterConfig(
        scheme="hB_zero_hA_he",
        rank=peft_config["r"],
        alpha=peft_config["lora_alpha"],
        dropout=peft_config.get("lora_dropout", 0.0),
        targets=[places[path] for path in paths],
        heads=[h for h in saved.heads if any(f".{h}." in f".{name}" for name in saved.others)],
        token_rows=token_rows.indices_of(saved, model),
        rank_pattern={places[path]: rank for path, rank in allowed.items()},
        alpha_pattern={
            places[path]: peft_scaling(peft_config, places[path], rank) * allowed[path] for path, rank in ranks.items()
        },
        share_expert_a=False,
    )


def _refuse_what_is_not_understood(saved: SavedAdapter) -> None:
    peft_config = saved.peft_config
    used = [key for key, value in peft_config.items() if value and key not in _UNDERSTOOD]
    if peft_config.get("bias", "none") != "none":
        used.append("bias")
    if peft_config.get("init_lora_weights") not in _PLAIN_INITS:
        used.append(f"init_lora_weights: {peft_config['init_lora_weights']}")
    if used:
        raise ValueError(
            f"`{saved.path / CONFIG_FILE}` uses {', '.join(f'`{u}`' for u in used)}, which plain low-rank adapters "
            "don't have."
        )


def _own_name(path: str, model: nn.Module, saved: SavedAdapter) -> str:
    """The layer that `peft` keeps at a path: it wraps layers, and parameters of a module one around the other."""
    plain = path.replace(".base_layer", "")
    parameters = _targeted_parameters(plain, model, saved)
    depth = path.count(".base_layer")
    return f"{plain}.{parameters[-1 - depth]}" if depth < len(parameters) else plain


def _targeted_parameters(name: str, model: nn.Module, saved: SavedAdapter) -> list[str]:
    """Parameters of a module that are targets; none where it is a layer, though it be targeted by its parameter."""
    targets = saved.peft_config.get("target_parameters") or ()
    modules = dict(plain_modules(model))
    if not targets or name not in modules or host_kind(modules[name]):
        return []
    parameters = [parameter for parameter, _ in modules[name].named_parameters(recurse=False)]
    return [p for p in parameters if any(f".{name}.{p}".endswith(f".{target}") for target in targets)]


def _peft_rank(path: str, model: nn.Module, saved: SavedAdapter) -> int:
    rank = len(saved.factors[f"{path}.lora_A"])
    name = path.replace(".base_layer", "")
    parameters = [submodule(model, name).get_parameter(p) for p in _targeted_parameters(name, model, saved)]
    return rank // len(parameters[0]) if parameters and parameters[0].dim() == 3 else rank  # of each expert


def _largest_rank(layer: nn.Module | None) -> int:
    """The rank that a layer's shape allows, above which `peft` goes."""
    kind = None if layer is None else host_kind(layer)
    return MAX_RANK if layer is None or kind is None else min(kind.shape_of(layer))


def _assign(model: nn.Module, saved: SavedAdapter, *, keeps_A: bool = False) -> None:
    factors, others = staged(model, saved, keeps_A=keeps_A)
    state = plain_state(model)
    adapters = adapters_by_name(model)
    with torch.no_grad():
        for name, (A, B) in factors.items():
            missing = adapters[name].max_rank - len(A)
            if not keeps_A:
                _copy(adapters[name].factor_A, nn.functional.pad(A, (0, 0, 0, missing)))
            _copy(adapters[name].factor_B, nn.functional.pad(B, (0, missing)))
        for name, tensor in others.items():
            _copy(state[name], tensor)
    for name, (A, _) in factors.items():
        adapters[name].rank = len(A)


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(sharded_like(source, target))


def staged(
    model: nn.Module, saved: SavedAdapter, *, keeps_A: bool = False
) -> tuple[dict[str, tuple[Tensor, Tensor]], Mapping[str, Tensor]]:
    """What would be written into an adapted model: A and B by layer and slice, at its scaling, and heads by name.

    Args:
        model: An adapted model.
        saved: What was read for it, by :func:`read_for`.
        keeps_A: The model's A's have to be those of the directory.

    Raises:
        ValueError: It does not fit; the message says what was expected and found.
    """
    layers = adapter_layers(model)
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    wanted: set[str] = set()
    for name, layer in layers.items():
        for slice_name, pair in _slices_of(name, layer, saved, wanted).items():
            adapter = layer.adapters[slice_name]
            A, B = _within_shape(*pair)
            rank = A.shape[0]
            if rank > adapter.max_rank or A.shape[1] != adapter.d_in or B.shape != (adapter.d_out, rank):
                raise ValueError(
                    f"`{saved.path}` does not fit `{name}` ({slice_name}): the model has room for A "
                    f"{(adapter.max_rank, adapter.d_in)} and B {(adapter.d_out, adapter.max_rank)}, found "
                    f"A {tuple(A.shape)} and B {tuple(B.shape)}."
                )
            if keeps_A and not (rank == adapter.rank and torch.equal(whole(adapter.A).to(A), A)):
                ranks = f", of rank {rank}, not {adapter.rank}," if rank != adapter.rank else ""
                raise ValueError(
                    f"`{saved.path}` was trained over another A of `{name}` ({slice_name}){ranks} than the model has, "
                    "and so can't take the place of its B or stand beside it: use `load_adapters`."
                )
            factors[f"{name}.{slice_name}"] = A, B
    unknown = [key for key in saved.factors if key not in wanted]
    if unknown:
        raise ValueError(f"`{saved.path}` adapts `{unknown[0].rpartition('.')[0]}`, which is not adapted in the model.")
    state = plain_state(model)
    heads = heads_of(model, saved)
    for name, tensor in saved.others.items():
        if not is_within(name, heads):
            raise ValueError(
                f"`{saved.path}` holds `{name}`, which is of no head of the model; those are "
                f"{', '.join(heads) or 'none'}."
            )
        if name not in state or state[name].shape != tensor.shape:
            here = tuple(state[name].shape) if name in state else "no such tensor"
            raise ValueError(f"`{saved.path}` holds `{name}` {tuple(tensor.shape)}, the model has {here}.")
    check_finite(without_buffers(model, saved.others), saved.path)
    for name, tensor in saved.base.items():
        if name not in state or not torch.equal(whole(state[name]).to(tensor), tensor):
            raise ValueError(f"`{saved.path}` was trained over another `{name}` than the model has.")
    return factors, saved.others


def heads_of(model: nn.Module, saved: SavedAdapter) -> list[str]:
    """The modules of an adapted model that a directory holds whole, and perhaps others of its heads."""
    layers = adapter_layers(model)
    heads = find_heads(model, next(iter(layers.values())).adapters.config.heads) if saved.others else []
    return [*heads, *((saved.config or {}).get("heads") or ())]  # what else had changed where it was saved


def _within_shape(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The factors or, where their rank is above what the shape of ``B A`` allows, others of the same product.

    The product is no larger than the factors then, and its QR decomposition gives it back to the rounding of float64.
    """
    if A.shape[0] <= min(A.shape[1], B.shape[0]) or B.shape[1] != A.shape[0]:
        return A, B
    Q, R = torch.linalg.qr((B.double() @ A.double()).T)
    return Q.T.to(A.dtype), R.T.to(B.dtype)


def _slices_of(
    name: str, layer: AdaptedLayer, saved: SavedAdapter, wanted: set[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each slice of one layer, with the model's own scaling; adds the keys it reads to ``wanted``."""
    if saved.is_compact:
        return {s: _compact_slice(name, s, layer, saved, wanted) for s in layer.adapters}
    place = layer.peft_place(name).path
    # Where PEFT has it in the configuration of this file, which may wrap more or less than ours would.
    paths = (place, f"{name}.base_layer", name)
    path = next((path for path in paths if f"{path}.lora_A" in saved.factors), place)
    keys = (f"{path}.lora_A", f"{path}.lora_B")
    wanted.update(keys)
    missing = [key for key in keys if key not in saved.factors]
    if missing:
        raise ValueError(f"`{saved.path}` lacks `{missing[0]}`, which the model needs.")
    try:
        A, B = layer.from_peft(*(saved.factors[key] for key in keys))
    except ValueError as error:
        raise ValueError(f"`{saved.path}` does not fit `{name}`, which {error}.") from error
    return _split_joined(name, layer, A, B, saved)


def _split_joined(
    name: str, layer: AdaptedLayer, A: Tensor, B: Tensor, saved: SavedAdapter
) -> dict[str, tuple[Tensor, Tensor]]:
    """Undo :func:`_joined`."""
    adapters = layer.adapters
    first = next(iter(adapters.values()))
    if saved.scaling is not None:  # ours, padded to the largest rank of all layers
        own = [saved.ranks.get(f"{name}.{part}", adapter.rank) for part, adapter in adapters.items()]
        width = own[0] if adapters.shares_a else sum(own)
        A, B, scaling = A[:width], B[:, :width], saved.scaling
    elif saved.config:
        scaling = _own_scaling(saved, name, layer, first)
    else:
        scaling = peft_scaling(saved.peft_config, name, layer.peft_rank(A.shape[0]))
    covered = sum(rows.count for rows in adapters.rows.values())
    d_out, _ = layer.shape_of(layer)
    if B.shape[0] != d_out:
        raise ValueError(f"`{saved.path}` does not fit `{name}`: B should have {d_out} rows, found {B.shape[0]}.")
    slices: dict[str, tuple[Tensor, Tensor]] = {}
    column = 0
    left = B.clone()
    for slice_name, adapter in adapters.items():
        rows = adapters.rows[slice_name]
        if adapters.shares_a:
            columns = slice(0, A.shape[0])
        else:
            rank = A.shape[0] if len(adapters) == 1 else saved.ranks.get(f"{name}.{slice_name}", adapter.rank)
            columns = slice(column, column + rank)
            column += rank
        block = rows.take(B[:, columns], 0)
        rows.view(left[:, columns], 0).zero_()
        slices[slice_name] = (A[columns], block * (scaling / adapter.scaling))
    if left.any() or (covered and not adapters.shares_a and column != A.shape[0]):
        raise ValueError(
            f"`{saved.path}` mixes the slices {', '.join(adapters)} of `{name}` in one A; adapt the model with "
            "`share_a: true`, or the whole layer by its name, to load it."
        )
    return slices


def _own_scaling(saved: SavedAdapter, name: str, layer: AdaptedLayer, adapter: LowRankAdapter) -> float:
    """What B A was multiplied by where we saved it."""
    assert saved.config is not None
    here, there = layer.adapters.config, AdapterConfig(**saved.config)
    if not (there.rank_pattern or there.alpha_pattern):
        return there.scaling(there.rank, there.alpha)
    if any(getattr(here, field) != getattr(there, field) for field in _DECIDE_ON_SCALING):
        raise ValueError(
            f"`{saved.path}` was saved with another scaling of `{name}` than the model has: adapt the model with the "
            f"same {', '.join(f'`{field}`' for field in _DECIDE_ON_SCALING)}."
        )
    return adapter.scaling


def _compact_slice(
    name: str, slice_name: str, layer: AdaptedLayer, saved: SavedAdapter, wanted: set[str]
) -> tuple[Tensor, Tensor]:
    key = f"{name}.{slice_name}"
    wanted.update((f"{key}.lora_A", f"{key}.lora_B"))
    if f"{key}.lora_B" not in saved.factors:
        raise ValueError(f"`{saved.path}` lacks `{key}.lora_B`, which the model needs.")
    adapter = layer.adapters[slice_name]
    B = saved.factors[f"{key}.lora_B"] * (_own_scaling(saved, name, layer, adapter) / adapter.scaling)
    if f"{key}.lora_A" in saved.factors:
        return saved.factors[f"{key}.lora_A"], B
    if key not in saved.checksums:
        raise ValueError(f"`{saved.path}` has neither A nor a checksum of it for `{key}`.")
    A = redraw_A(layer, slice_name, rank=B.shape[1])
    if abs(checksum(A) - saved.checksums[key]) > CHECKSUM_TOLERANCE:
        raise ValueError(
            f"A of `{key}`, redrawn from seed {layer.adapters.config.seed}, has checksum {checksum(A):.6f}, but "
            f"`{saved.path}` expects {saved.checksums[key]:.6f}; was it saved with another seed, init or backbone?"
        )
    return A, B
