"""From the names in a configuration to layers of a model: roles, ``all-linear``, suffixes and globs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import host_kind, host_names, kind_of
from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import GENERIC, Family, family_of, known_roles
from asym_lightning.adapters.targets.patterns import is_within, matches, matching, suffixes
from asym_lightning.core.messages import did_you_mean, listed

ALL_LINEAR = "all-linear"
WHOLE = "all"


@dataclass
class Target:
    """A layer to adapt and the slices of it."""

    name: str
    layer: nn.Module
    kind: type[AdaptedLayer]
    rows: dict[str, Rows] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """(d_out, d_in) view of the layer's weight."""
        # The method reads only what the host's layer has.
        return self.kind.weight_matrix(self.layer)  # type: ignore[arg-type]


def find_targets(model: nn.Module, config: AdapterConfig, heads: Iterable[str] = ()) -> list[Target]:
    """The layers that ``config.targets`` names, in the model's order, heads and ``config.exclude`` left out.

    Raises:
        ValueError: A target or an excluded pattern matches nothing, a layer is of a kind that can't be adapted, or a
            slice and the whole of one layer are asked for at once.
    """
    heads = tuple(heads)
    layers = {name: layer for name, layer in model.named_modules() if host_kind(layer)}
    excluded = _excluded(config.exclude, layers)
    candidates = {n: layer for n, layer in layers.items() if not is_within(n, heads) and n not in excluded}
    families = _families(model, candidates)
    outputs = output_layers(model)
    found: dict[str, dict[str, tuple[Rows, str]]] = {}
    for token in config.targets:
        is_pattern = token not in (*known_roles(), ALL_LINEAR)
        names = matching(token, candidates) if is_pattern else candidates
        hits = {
            name: slices
            for name in names
            if (slices := _slices(token, name, candidates[name], *families[name], is_output=name in outputs))
        }
        if not hits:
            raise ValueError(_no_match(token, model, layers, candidates, families))
        for name, slices in hits.items():
            found.setdefault(name, {}).update(slices)
    return [_target(name, candidates[name], found[name]) for name in candidates if name in found]


def resolve_pattern(
    pattern: Mapping[str, Any], target: Target, slice_name: str, default: Any
) -> tuple[Any, str | None]:
    """The value for one slice from ``rank_pattern`` or ``alpha_pattern``, and the key it came from (else ``None``)."""
    for key, value in pattern.items():
        if key == target.roles[slice_name] or matches(target.name, key):
            return value, key
    return default, None


def _slices(
    token: str, name: str, layer: nn.Module, family: Family, model_config: Any, *, is_output: bool
) -> dict[str, tuple[Rows, str]]:
    """Slices of this layer that ``token`` names, each with its rows and its role."""
    kind = host_kind(layer)
    assert kind is not None
    d_out, _ = kind.shape_of(layer)
    whole = Rows(0, d_out)
    role = next((r for r, suffixes in family.roles.items() if any(matches(name, s) for s in suffixes)), "")
    if token not in (*known_roles(), ALL_LINEAR):
        return {WHOLE: (whole, role)}
    if token == ALL_LINEAR and (is_output or not kind.is_linear):
        return {}
    fused = kind.slices_of(layer)
    if fused is None and (layout := next((f for suffix, f in family.fused.items() if matches(name, suffix)), None)):
        fused = layout(d_out, model_config)
    if token in known_roles():
        if fused is not None:
            return {token: (fused[token], token)} if token in fused else {}
        return {WHOLE: (whole, token)} if role == token else {}
    return {s: (rows, s) for s, rows in fused.items()} if fused is not None else {WHOLE: (whole, role)}


def _target(name: str, layer: nn.Module, slices: dict[str, tuple[Rows, str]]) -> Target:
    kind = kind_of(layer)
    if kind is None:
        raise ValueError(
            f"Layer `{name}` is a {type(layer).__name__}, which may compute its output in a way of its own; only "
            f"{', '.join(host_names())} themselves are adapted. Name it in `exclude`, or register a kind for it."
        )
    if refusal := kind.refusal(layer):
        raise ValueError(f"Layer `{name}` {refusal}; name it in `exclude`.")
    if WHOLE in slices and len(slices) > 1:
        parts = ", ".join(s for s in slices if s != WHOLE)
        raise ValueError(
            f"`targets` ask for the whole of `{name}` and for its slices {parts} at once; name one of them."
        )
    # In the order of the rows, whatever the order of `targets`.
    ordered = dict(sorted(slices.items(), key=lambda item: item[1][0].start))
    return Target(
        name,
        layer,
        kind,
        rows={s: rows for s, (rows, _) in ordered.items()},
        roles={s: role for s, (_, role) in ordered.items()},
    )


def _families(model: nn.Module, names: Iterable[str]) -> dict[str, tuple[Family, Any]]:
    """For each layer the family of its nearest announcing ancestor, and that ancestor's config."""
    announced = {n: (f, getattr(m, "config", None)) for n, m in model.named_modules() if (f := family_of(m))}
    default = announced.get("", (GENERIC, getattr(model, "config", None)))
    result = {}
    for name in names:
        parents = name.split(".")[:-1]
        paths = (".".join(parents[:i]) for i in range(len(parents), 0, -1))
        result[name] = next((announced[path] for path in paths if path in announced), default)
    return result


def output_layers(model: nn.Module) -> set[str]:
    """Layers that turn hidden states into tokens, or share their weight with an embedding."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = set()
    for module in model.modules():
        get_output = getattr(module, "get_output_embeddings", None)
        if callable(get_output):
            heads.add(id(get_output()))
    layers = ((name, layer) for name, layer in model.named_modules() if host_kind(layer))
    return {n for n, layer in layers if id(layer) in heads or id(getattr(layer, "weight", None)) in embeddings}


# --- messages -----------------------------------------------------------------------------------------------------


def _excluded(patterns: Sequence[str], layers: Mapping[str, nn.Module]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        hits = matching(pattern, layers)
        if not hits:
            raise ValueError(f"`exclude` entry {pattern!r} matches no layer{did_you_mean(pattern, suffixes(layers))}")
        found.update(hits)
    return found


def _no_match(
    token: str,
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    candidates: Mapping[str, nn.Module],
    families: Mapping[str, tuple[Family, Any]],
) -> str:
    dropped = [name for name in layers if name not in candidates and matches(name, token)]
    if dropped:
        return f"`targets` entry {token!r} matches only layers that are heads or excluded: {listed(dropped, 8)}."
    if token not in known_roles():
        known = [*known_roles(), ALL_LINEAR, *suffixes(layers)]
        return f"`targets` entry {token!r} matches no layer{did_you_mean(token, known)}"
    message = f"`targets` entry {token!r} matches no layer of {type(model).__name__}"
    if any(isinstance(m, nn.MultiheadAttention) for m in model.modules()) and token in "qkvo":
        return (
            f"{message}: its nn.MultiheadAttention reads its projections as bare weights and calls no layer for them, "
            "so they can't be adapted; target 'mlp' or name layers."
        )
    played = [
        role
        for role in known_roles()
        if any(_slices(role, name, layer, *families[name], is_output=False) for name, layer in candidates.items())
    ]
    roles = f"the roles {', '.join(played)}" if played else "no role that is known for it"
    return f"{message}, which has {roles}; other layers go by suffix: {listed(suffixes(layers), 8)}."
