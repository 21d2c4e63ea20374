"""A transformers configuration of any type, made small by what its fields are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING, PretrainedConfig

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER, VOCABULARY, POSITIONS, IMAGE, PATCH = 64, 4, 2, 16, 96, 160, 128, 32, 8
Rules = tuple[tuple[str, int], ...]
# How many there are of something, whatever its width.
COUNTS: Rules = (
    (
        r"(?!.*(feat|conv|upsampl|adapter|pos))(.*_)?(num_)?(hidden_|encoder_|decoder_)?(layers?|blocks)|depth|n_layers?",
        2,
    ),
    (r"first_k_dense_replace|num_dense_layers", 1),
    (r"num_self_attends_per_block", 2),
    (r"(num_|n_routed_|moe_num_|num_local_)experts", 4),
    (r"num_experts_per_tok(en)?|top_k|moe_top_?k|moe_k|router_top_k", 2),
    (r"n_shared_experts|num_shared_experts|moe_num_shared_experts", 1),
    (r"n_group|topk_group|num_expert_group|n_groups", 1),
    (r"(.*_)?vocab_size(_.*)?|.*_(group|hash)_vocab", VOCABULARY),
    (r"num_frames", 4),
    (r"num_queries|num_query_tokens|latent_query_num", 8),
)
# Every width of every tower is the same, so that what joins two of them fits.
_WIDTHS: Rules = (
    (r"num_key_value_heads|num_kv_heads|kv_heads|.*_num_key_value_heads|num_global_key_value_heads", KV_HEADS),
    (r"(.*_)?(num_attention_heads|attention_heads|num_heads|n_heads?|num_query_heads|heads)", HEADS),
    (r"head_dim|.*_head_dim|d_kv|kv_channels|attention_head_dim|dim_head|d_head|v_head_dim|global_head_dim", HEAD_DIM),
    (r"qk_rope_head_dim|qk_nope_head_dim", HEAD_DIM),
    (r"q_lora_rank|kv_lora_rank|o_lora_rank", 24),
    (r"(.*_)?(intermediate_size|ffn_dim|mlp_dim|d_ff|d_inner|n_inner|ffn_hidden_size|intermediate_dim)", INNER),
    (r".*intermediate_size.*|dim_feedforward|.*feedforward_dim|.*linear_units|share_expert_dim", INNER),
    (r"hidden_size|d_model|n_embd|embed_dim|hidden_dim|dim|emb_dim|width|(.*_)?(hidden_size(_global)?|d_model)", WIDTH),
    (r"(.*_)?((?<!image_)embedding_size|projection_dim|embed_dim|hidden_dim|proj_dim)", WIDTH),
    (r"(.*_)?(projection_size|output_dim)", WIDTH),
    (r"embedding_dim|project_dim|classifier_proj_size|word_embed_proj_dim|latent_dim|.*pooler_output_size", WIDTH),
    (r"max_position_embeddings|n_positions|n_ctx|max_(source|target)_positions|context_length|max_seq_len", POSITIONS),
    (r"(sliding_window|local_attention|attention_window|window_size|sliding_window_size)", 4),
    (r"image_size|pretrain_image_size|(max_)?img_size|crop_size", IMAGE),
    (r".*upsample_groups", WIDTH),
    (r"patch_size", PATCH),
)
# First match counts.
RULES: Rules = (*COUNTS, *_WIDTHS)
_LAYER_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types")
_TOKEN = re.compile(r".*(token_id|token_index|_id|token_ids)$")


class _Shrinking(NamedTuple):
    """How fields are made small; as for `small_config`."""

    of_types: Mapping[str, Mapping[str, Any]]
    rules: Rules
    lists: bool
    missing: bool
    divisor: int


def small_config(
    model_type: str,
    of_types: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    rules: Rules = RULES,
    lists: bool = False,
    missing: bool = False,
    divisor: int = 1,
) -> PretrainedConfig:
    """The smallest configuration of a type that the rules and ``overrides`` make.

    Args:
        model_type: A key of transformers' mapping of configurations.
        of_types: Fields that the rules get wrong, by type; of the parts of a model too.
        overrides: More of them: dotted for those of a sub-configuration; ``*name`` in all of them.
        rules: A small value by what a field is called: ``COUNTS`` alone leave all widths as they are.
        lists: Make stages shallow too, let fields that name layers by their number name such as there are, and keep
            what the type's configuration says of its parts.
        missing: Give fields that are ``None`` and that the rules or the names of tokens know a value.
        divisor: Of widths, and of lists of them, so that those that hang together still do.
    """
    default = CONFIG_MAPPING[model_type]()
    shrinking = _Shrinking(of_types or {}, rules, lists, missing, divisor)
    return _shrunk(default, dict(overrides or {}), shrinking)


def _shrunk(default: PretrainedConfig, overrides: dict[str, Any], how: _Shrinking) -> PretrainedConfig:
    overrides = {**how.of_types.get(default.model_type, {}), **overrides}
    values = _set_by_parent(default) if how.lists else {}
    for name, value in vars(default).items():
        if name.startswith("_") or name in overrides:
            continue
        if isinstance(value, PretrainedConfig):
            inner = {
                k.removeprefix(f"{name}."): v
                for k, v in overrides.items()
                if k.startswith((f"{name}.", "*")) or k == "mrope_section"
            }
            values[name] = _shrunk(value, inner, how)
            continue
        small = _small_value(name, value, how.rules)
        if how.divisor > 1 and _is_number_of_stages(value, default):
            small = None
        elif how.divisor > 1 and small is None:
            small = _divided(name, value, how.divisor)
        if small is not None:
            values[name] = small
    if how.lists:
        values |= _lists(default, values)
    values |= _layers(default, values)
    if isinstance(rope := getattr(default, "rope_parameters", None), dict):
        values["rope_parameters"] = _rotary(rope, overrides)
    values |= _tokens(default, values)
    if how.missing:
        values |= _missing(default, values, how.rules)
    values |= {n[1:]: v for n, v in overrides.items() if n.startswith("*") and hasattr(default, n[1:])}
    values |= {n: v for n, v in overrides.items() if "." not in n and not n.startswith("*") and n != "mrope_section"}
    names = {n: default.attribute_map.get(n, n) for n in values}
    computed = {n for n, own in names.items() if isinstance(getattr(type(default), own, None), property)}
    computed -= {n.lstrip("_") for n in vars(default) if n.startswith("_")}  # those of a field that is there, too
    return type(default)(**{n: v for n, v in values.items() if n not in computed})


def _set_by_parent(default: PretrainedConfig) -> dict[str, Any]:
    """What a part of a model has otherwise than its type has by itself."""
    differing = {n: v for n, v in default.to_diff_dict().items() if n in vars(default) and not n.startswith("_")}
    return {n: v for n, v in differing.items() if not isinstance(v, dict) and n != "transformers_version"}


def _small_value(name: str, value: Any, rules: Rules) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return None
    return next((min(small, value) for pattern, small in rules if re.fullmatch(pattern, name)), None)


_SIZES = re.compile(
    r"(?!.*(vocab|image|img|input|patch|kernel|window|chunk|max_|num_|stride|mel|in_chan|factor|group|spec_|batch|head_num))"
    r"(.*_)?(size|dim|width|channel|feature|rank|d_model|d_ff|d_kv|n_embd|d_inner|n_inner)s?(_(list|per_stage))?"
)


def _is_number_of_stages(value: Any, default: PretrainedConfig) -> bool:
    """Whether several lists are as long, and so say something of each of as many stages."""
    return type(value) is int and sum(_is_of_integers(v) and len(v) == value > 1 for v in vars(default).values()) > 1


def _divided(name: str, value: Any, divisor: int) -> Any:
    """A width, widths or groups of as many channels, by the divisor; ``None`` otherwise and where it does not go."""
    if not _SIZES.fullmatch(name) and not (name.endswith("_groups") and isinstance(value, int) and value >= 64):
        return None
    if _is_of_integers(value):
        return None if any(v % divisor for v in value) else [v // divisor for v in value]
    is_width = isinstance(value, int) and not isinstance(value, bool) and value > divisor
    return value // divisor if is_width and value % divisor == 0 else None


def _missing(default: PretrainedConfig, small: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """Values where the type has none: what a rule says, tokens, timm's model, and how positions turn in layers."""
    fields: dict[str, Any] = {}
    free = iter(range(VOCABULARY - 20, 0, -1))
    for name, value in vars(default).items():
        if _TOKEN.fullmatch(name) and _is_of_integers(value):
            fields[name] = [next(free) for _ in value]
        if value is not None or name in small or name.startswith("_"):
            continue
        if name in ("backbone", "architecture") and "timm" in default.model_type:
            fields[name] = "test_resnet"
        elif re.fullmatch(r"(image|audio|video)_token_(id|index)", name):
            fields[name] = next(free)
        elif (known := next((v for pattern, v in rules if re.fullmatch(pattern, name)), None)) is not None:
            fields[name] = known
    kinds = small.get("layer_types", getattr(default, "layer_types", None))
    if getattr(default, "rope_parameters", None) == {} and kinds:
        fields["rope_parameters"] = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in kinds}
    return fields


_DEPTHS = re.compile(r"(.*_)?(depths|num_blocks|num_layers|blocks_per_stage|layers_per_stage)")
_INDICES = re.compile(r".*(indices|indexes|feature_layers?|_layer_ids|layer_idxs?)|out_layers")
_NUMBER_OF_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "depth")


def _lists(default: PretrainedConfig, small: Mapping[str, Any]) -> dict[str, Any]:
    """One block a stage; as many layers as are named by their number, which are then all that there are."""
    found = {n.lstrip("_"): list(v) for n, v in vars(default).items() if _is_of_integers(v)}
    depths: dict[str, Any] = {n: [min(i, 1) for i in v] for n, v in found.items() if _DEPTHS.fullmatch(n)}
    indices = {n: v for n, v in found.items() if _INDICES.fullmatch(n) and n not in depths}
    layers = next((n for n in _NUMBER_OF_LAYERS if isinstance(getattr(default, n, None), int)), None)
    wanted = max((2, *(len(v) for v in indices.values())))
    was = 0 if layers is None else getattr(default, layers)
    if layers is None or depths or wanted > 8:
        kept = {layers: was} if any(len(v) == was for v in depths.values()) else {}
        return depths | kept | {n: v for n, v in indices.items() if n == "out_indices"}
    return {n: _last_of(v, wanted, was) for n, v in indices.items()} | {layers: wanted}


def _last_of(indices: list[int], wanted: int, was: int) -> list[int]:
    """The last layers of ``wanted``, in the order of ``indices`` of ``was``; those from the end stay."""
    ranks = {index: rank for rank, index in enumerate(sorted({i for i in indices if i >= 0}))}
    start = wanted - len(ranks) + (max(indices) >= was)  # layers that are counted from 1 have the stem before them
    return [i if i < 0 else start + ranks[i] for i in indices]


def _is_of_integers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(type(i) is int for i in value)


def _rotary(parameters: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a rotation in several axes, which share a head's width, in parameters of one or more kinds."""
    small = {k: _rotary(v, overrides) if isinstance(v, dict) else v for k, v in parameters.items()}
    if "mrope_section" in {*small, *overrides} and "rope_type" in small:
        half = int(HEAD_DIM * small.get("partial_rotary_factor", 1)) // 2
        small["mrope_section"] = [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8]
    return small


def _layers(default: PretrainedConfig, small: dict[str, Any]) -> dict[str, Any]:
    """As many layers as there are kinds of them, one of each kind."""
    lists = {n: list(v) for n in _LAYER_LISTS if isinstance(v := getattr(default, n, None), (list, tuple)) and v}
    if not lists:
        return {}
    length = min(map(len, lists.values()))
    kinds: dict[tuple[Any, ...], int] = {}
    for i in range(length):
        kinds.setdefault(tuple(v[i] for v in lists.values()), i)
    chosen = sorted(kinds.values())[:4]
    chosen = chosen if len(chosen) > 1 else [*chosen, *chosen]
    fields = {n: [v[i] for i in chosen] for n, v in lists.items()}
    for name in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
        if hasattr(default, name):
            fields[name] = len(chosen)
    return fields


def _tokens(default: PretrainedConfig, small: dict[str, Any]) -> dict[str, Any]:
    """Special tokens within the small vocabulary, each its own."""
    fields, free = {}, iter(range(VOCABULARY - 1, 0, -1))
    for name, value in vars(default).items():
        if name in small and not isinstance(small[name], int):
            continue
        if _TOKEN.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool) and value >= 8:
            fields[name] = next(free)
        elif _TOKEN.fullmatch(name) and _is_of_integers(value):
            fields[name] = [next(free) for _ in value]
    if getattr(default, "pad_token_id", 0) is None:
        fields["pad_token_id"] = 0
    return fields
