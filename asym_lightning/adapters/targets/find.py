"""From the names in a configuration to layers of a model: roles, ``all-linear``, ``all-conv``, suffixes and globs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.kinds.registry import host_kind, host_names, kind_of, kinds, layers_of
from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.derived import PLACES, derived_role, derived_slices, held_roles, places_of
from asym_lightning.adapters.targets.families.family import GENERIC, Family, Layout, family_of, known_roles
from asym_lightning.adapters.targets.patterns import is_within, matches, matching, suffixes
from asym_lightning.core.messages import did_you_mean, listed
from asym_lightning.core.names import plain_modules, submodule

ALL_LINEAR, ALL_CONV = "all-linear", "all-conv"
EVERY = (ALL_LINEAR, ALL_CONV)
WHOLE = "all"


@dataclass
class Target:
    """A layer to adapt and the slices of it.

    Attributes:
        name: Its name in the model.
        layer: The layer.
        kind: How it is adapted.
        rows: Rows of each slice.
        roles: Role of each slice, ``""`` where it plays none that is known.
        is_named: It was asked for by a role or by its name, and not only as one of all or of a part of the model.
    """

    name: str
    layer: nn.Module
    kind: type[AdaptedLayer]
    rows: dict[str, Rows] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    is_named: bool = True

    @property
    def weight(self) -> Tensor:
        """(d_out, d_in) view of the layer's weight."""
        # The method reads only what the host's layer has.
        return self.kind.weight_matrix(self.layer)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Found:
    """What targets are found in a model.

    Attributes:
        targets: The layers to adapt, in the model's order.
        left_out: Layers that a word for many would mean and that can't be adapted, with the reason.
        candidates: All layers that may be targets, by name.
        derived: By role that was asked for, layers of which no family says that they play it.
    """

    targets: Sequence[Target]
    left_out: Mapping[str, str]
    candidates: Mapping[str, Candidate]
    derived: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Candidate:
    """A layer that may be a target, and what is known of it before any is asked for.

    Attributes:
        name: Its name in the model.
        layer: The layer.
        kind: The kind of adapted layer of its class, or of one that its class is derived from.
        role: The role that it plays as a whole, or ``""``.
        slices: Rows by slice of a fused layer; ``None`` where it is not fused, empty where the rows are not known.
        is_output: It turns hidden states into tokens, or shares its weight with an embedding.
        is_derived: Role or slices are those that its name and class tell, and no family.
        places: Words for the parts of the model that it lies in.
    """

    name: str
    layer: nn.Module
    kind: type[AdaptedLayer]
    role: str
    slices: Mapping[str, Rows] | None
    is_output: bool
    is_derived: bool
    places: Container[str]

    @property
    def whole(self) -> dict[str, tuple[Rows, str]]:
        """All of this layer as one slice, with its rows and its role."""
        return {WHOLE: (Rows(0, self.kind.shape_of(self.layer)[0]), self.role)}

    def slices_for(self, token: str) -> dict[str, tuple[Rows, str]]:
        """Slices of this layer that ``token`` names, each with its rows and its role."""
        whole = self.whole
        if token in (*EVERY, *PLACES):
            means = self.kind.is_convolution if token == ALL_CONV else self.kind.counts_as_linear(self.layer)
            if self.is_output or not means or (token in PLACES and token not in self.places):
                return {}
            return {s: (rows, s) for s, rows in self.slices.items()} if self.slices else whole
        if token not in roles():
            return whole
        if token in _roles_of_kinds():  # experts may also be modules, in a list of that name
            return whole if token == self.kind.own_role or token in self.name.split(".") else {}
        if self.slices is not None:
            return {token: (self.slices[token], token)} if token in self.slices else {}
        return whole if self.role == token else {}


def roles() -> tuple[str, ...]:
    """The words for roles: those of families, of parts of a model, and of kinds of layers."""
    return tuple(dict.fromkeys((*known_roles(), *PLACES, *_roles_of_kinds())))


def _roles_of_kinds() -> list[str]:
    return [kind.own_role for kind in kinds() if kind.own_role]


def find_targets(model: nn.Module, config: AdapterConfig, heads: Iterable[str] = ()) -> Found:
    """The layers that ``config.targets`` names, heads and ``config.exclude`` left out.

    Raises:
        ValueError: A target or an excluded pattern matches nothing, a layer that is named is of a kind that can't be
            adapted, or a slice and the whole of one layer are asked for at once.
    """
    heads = tuple(heads)
    layers = layers_of(model)
    excluded, of_slices = _excluded(config.exclude, model, layers)
    in_heads = {id(p) for head in heads for p in submodule(model, head).parameters()}  # under other names, too
    names = [
        name
        for name, layer in layers.items()
        if not (is_within(name, [*heads, *excluded]) or id(layer._parameters.get("weight")) in in_heads)
    ]
    candidates = _candidates(model, {name: layers[name] for name in names})
    excluded_slices = _excluded_slices(of_slices, candidates)
    slices: dict[str, dict[str, tuple[Rows, str]]] = {}
    named: set[str] = set()
    derived: dict[str, list[str]] = {}
    for token in config.targets:
        of_token = candidates if token in (*roles(), *EVERY) else matching(token, candidates)
        meant = {name: found for name in of_token if (found := candidates[name].slices_for(token))}
        if not meant and token in candidates:  # a word for a role that no layer plays, and the name of one
            meant = {token: candidates[token].whole}
        hits = {
            n: {s: rows for s, rows in hit.items() if f"{n}.{s}" not in excluded_slices} for n, hit in meant.items()
        }
        hits = {name: found for name, found in hits.items() if found}
        if meant and not hits:
            slices_of = [f"`{name}.{part}`" for name, found in meant.items() for part in found]
            raise ValueError(f"`targets` entry {token!r} means only slices that are excluded: {listed(slices_of, 8)}.")
        if not hits:
            raise ValueError(_no_match(token, model, layers, candidates))
        for name, found in hits.items():
            slices.setdefault(name, {}).update(found)
        named.update(() if token in (*EVERY, *PLACES) else hits)
        if token in known_roles() and (guessed := [name for name in hits if candidates[name].is_derived]):
            derived[token] = guessed
    left_out = {n: _other_forward(layers[n]) for n in slices if n not in named and kind_of(layers[n]) is None}
    targets = [
        _target(candidates[name], slices[name], config, is_named=name in named)
        for name in candidates
        if name in slices and name not in left_out
    ]
    if not targets:
        name, reason = next(iter(left_out.items()))
        raise ValueError(f"`targets` mean only layers that can't be adapted: `{name}` {reason}.")
    return Found(targets, left_out, candidates, derived)


def resolve_pattern(
    pattern: Mapping[str, Any], target: Target, slice_name: str, default: Any
) -> tuple[Any, str | None]:
    """The value for one slice from ``rank_pattern`` or ``alpha_pattern``, and the key it came from (else ``None``)."""
    for key, value in pattern.items():
        if key == target.roles[slice_name] or matches(target.name, key):
            return value, key
    return default, None


def output_layers(model: nn.Module) -> set[str]:
    """Layers that turn hidden states into tokens, or share their weight with an embedding."""
    embeddings = {id(m): id(own_parameter(m)) for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = set()
    for module in model.modules():
        get_output = getattr(module, "get_output_embeddings", None)
        if callable(get_output):
            heads.add(id(get_output()))
    shared = set(embeddings.values())
    layers = ((n, layer) for n, layer in plain_modules(model) if host_kind(layer) and id(layer) not in embeddings)
    return {n for n, layer in layers if id(layer) in heads or id(layer._parameters.get("weight")) in shared}


def _candidates(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, Candidate]:
    """Each layer by the family of its nearest announcing ancestor."""
    announced = {name: (family, module) for name, module in plain_modules(model) if (family := family_of(module))}
    default = announced.get("", (GENERIC, model))
    outputs = output_layers(model)
    found = {}
    for name, layer in layers.items():
        kind = host_kind(layer)
        assert kind is not None
        parts = name.split(".")
        paths = (".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1))
        family, announcing = next((announced[path] for path in paths if path in announced), default)
        role, slices, is_derived = "", kind.slices_of(layer), False
        if kind.plays_roles:
            own = next((r for r, patterns in family.roles.items() if any(matches(name, p) for p in patterns)), None)
            is_derived = own is None or family is GENERIC
            role = derived_role(name, model) if own is None else own
            if slices is None and (layout := _layout(name, family)):
                slices, is_derived = _rows_of(layout, model, name, kind.shape_of(layer)[0], announcing), False
            elif slices is None:
                slices = derived_slices(name, model, kind.shape_of(layer)[0])
            else:
                is_derived = False
        places = places_of(name, model)
        found[name] = Candidate(name, layer, kind, role, slices, name in outputs, is_derived, places)
    return found


def _layout(name: str, family: Family) -> tuple[str, Layout] | None:
    """The layout by which a family knows a fused projection, and the suffix that it has it for."""
    return next(((suffix, layout) for suffix, layout in family.fused.items() if matches(name, suffix)), None)


def _rows_of(
    found: tuple[str, Layout], model: nn.Module, name: str, d_out: int, announcing: nn.Module
) -> Mapping[str, Rows]:
    suffix, layout = found
    holder = submodule(model, ".".join(name.split(".")[: -len(suffix.split("."))]))
    return layout(d_out, getattr(announcing, "config", None) or holder)


def _target(
    candidate: Candidate, slices: dict[str, tuple[Rows, str]], config: AdapterConfig, *, is_named: bool
) -> Target:
    name, layer = candidate.name, candidate.layer
    kind = kind_of(layer)
    if kind is None:
        raise ValueError(
            f"Layer `{name}` {_other_forward(layer)}; only {', '.join(host_names())} themselves are adapted. Name it "
            "in `exclude`, or register a kind for it."
        )
    if refusal := kind.refusal(layer):
        raise ValueError(f"Layer `{name}` {refusal}; name it in `exclude`.")
    if WHOLE in slices and len(slices) > 1:
        parts = ", ".join(s for s in slices if s != WHOLE)
        raise ValueError(
            f"`targets` ask for the whole of `{name}` and for its slices {parts} at once; name one of them."
        )
    if not config.share_expert_a and WHOLE in slices and (parts_of := kind.parts_with_own_A(layer)):
        slices = {part: (rows, candidate.role) for part, rows in parts_of.items()}
    # In the order of the rows, whatever the order of `targets`.
    ordered = dict(sorted(slices.items(), key=lambda item: item[1][0].start))
    return Target(
        name,
        layer,
        kind,
        rows={s: rows for s, (rows, _) in ordered.items()},
        roles={s: role for s, (_, role) in ordered.items()},
        is_named=is_named,
    )


def _other_forward(layer: nn.Module) -> str:
    return f"is a {type(layer).__name__}, which may compute its output in a way of its own"


# --- messages -----------------------------------------------------------------------------------------------------


def _excluded(
    patterns: Sequence[str], model: nn.Module, layers: Mapping[str, nn.Module]
) -> tuple[list[str], list[str]]:
    """Layers, and modules with all layers in them; and patterns that may mean slices, as messages name adapters."""
    names = [name for name, _ in plain_modules(model) if name]
    found: list[str] = []
    of_slices: list[str] = []
    for pattern in patterns:
        hits = matching(pattern, names)
        layer_pattern, _, part = pattern.rpartition(".")
        if not hits and part == WHOLE:
            hits = matching(layer_pattern, layers)
        if not hits and part in roles():
            of_slices.append(pattern)
        elif not any(is_within(layer, hits) for layer in layers):
            raise ValueError(f"`exclude` entry {pattern!r} matches no layer{did_you_mean(pattern, _own_words(layers))}")
        found += hits
    return found, of_slices


def _excluded_slices(patterns: Sequence[str], candidates: Mapping[str, Candidate]) -> set[str]:
    slices = [f"{name}.{part}" for name, candidate in candidates.items() for part in candidate.slices or ()]
    found: set[str] = set()
    for pattern in patterns:
        hits = matching(pattern, slices)
        if not hits:
            raise ValueError(f"`exclude` entry {pattern!r} matches no layer{did_you_mean(pattern, suffixes(slices))}")
        found.update(hits)
    return found


def _own_words(layers: Mapping[str, nn.Module]) -> list[str]:
    """How the layers of a model may be named, where no role does."""
    return suffixes(layers) or list(layers)


def _no_match(
    token: str, model: nn.Module, layers: Mapping[str, nn.Module], candidates: Mapping[str, Candidate]
) -> str:
    dropped = [name for name in layers if name not in candidates and matches(name, token)]
    if dropped:
        return f"`targets` entry {token!r} matches only layers that are heads or excluded: {listed(dropped, 8)}."
    words = (*roles(), *EVERY)
    played = [word for word in words if any(c.slices_for(word) for c in candidates.values())]
    if token not in words:
        return f"`targets` entry {token!r} matches no layer{did_you_mean(token, [*played, *_own_words(layers)])}"
    message = f"`targets` entry {token!r} matches no layer of {type(model).__name__}"
    has = f"the roles {', '.join(played)}" if played else "no role that is known for it"
    others = f"other layers go by suffix: {listed(_own_words(layers), 8)}" if layers else "it has no layer to adapt"
    unknown = [name for name, c in candidates.items() if c.slices is not None and not c.slices]
    if unknown and token in roles():
        others = f"which rows of fused layers such as `{unknown[0]}` are q, k and v is not known, so name those whole"
    elif held := next(held_roles(model, token), None):
        others = f"`{held}` is a parameter that its module multiplies by itself, and no layer to adapt"
    return f"{message}, which has {has}; {others}."
