"""The modules that are trained in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from asym_lightning.adapters.layers.token_rows import TokenRows
from asym_lightning.adapters.targets.derived import ATTENTION
from asym_lightning.adapters.targets.families.family import GENERIC, family_of
from asym_lightning.adapters.targets.find import output_layers
from asym_lightning.adapters.targets.patterns import is_within, matching, suffixes
from asym_lightning.core.messages import did_you_mean
from asym_lightning.core.names import plain_modules


def find_heads(model: nn.Module, config_heads: Sequence[str] | None) -> list[str]:
    """Names of the modules that are trained in full: those that the patterns match, or each family's own head.

    Rows of tables that train are among them, once they stand there.

    Raises:
        ValueError: A pattern matches no module.
    """
    names = {name: module for name, module in plain_modules(model) if name}
    if config_heads is None:
        heads = [head for name, module in _announcing_roots(model) for head in _own_heads(name, module)]
        return [name for name in names if name in heads or isinstance(names[name], TokenRows)]
    found: list[str] = []
    for pattern in config_heads:
        hits = matching(pattern, names)
        if not hits:
            raise ValueError(f"`heads` entry {pattern!r} matches no module{did_you_mean(pattern, suffixes(names))}")
        found += hits
    return [name for name in names if name in found or isinstance(names[name], TokenRows)]


def _announcing_roots(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Outermost modules that announce a family; a host's own wrapper around them announces none."""
    roots: list[tuple[str, nn.Module]] = []
    for name, module in plain_modules(model):
        if family_of(module) and not any(root == "" or is_within(name, [root]) for root, _ in roots):
            roots.append((name, module))
    return roots


def _own_heads(name: str, module: nn.Module) -> list[str]:
    family = family_of(module)
    assert family is not None
    prefix = f"{name}." if name else ""
    if callable(getattr(module, "get_classifier", None)):
        return [prefix + head for head in _classifiers(module)]
    vocabulary = output_layers(module)
    named = {name: child for name, child in module.named_children() if name in family.heads}
    # What is called a head in a model that is not known may be a pooling by attention, pretrained like the rest.
    heads = {name for name, child in named.items() if family is not GENERIC or not _attends(child)}
    heads |= set() if vocabulary else _outside_the_base(module)
    return [prefix + head for head in heads if not any(is_within(layer, [head]) for layer in vocabulary)]


def _classifiers(module: Any) -> list[str]:
    """What timm calls the classifier of a model, and what else it leaves out of a checkpoint of other classes."""
    given = module.get_classifier()
    given = given if isinstance(given, (tuple, list)) else [given]
    found = [name for name, part in plain_modules(module) if name and any(part is g for g in given)]
    left_out = (getattr(module, "pretrained_cfg", None) or {}).get("classifier") or ()
    for name in [left_out] if isinstance(left_out, str) else left_out:
        is_there = any(own == name and any(True for _ in part.parameters()) for own, part in plain_modules(module))
        if is_there and not is_within(name, found) and not any(is_within(head, [name]) for head in found):
            found.append(name)
    return found


def _outside_the_base(module: nn.Module) -> set[str]:
    """What a model of transformers has beside its base model: it is new unless the checkpoint was for the same task.

    A part with attention in it is a second tower and no head. A model that gives tokens has no new part.
    """
    base = getattr(module, "base_model_prefix", "")
    children = {name: child for name, child in module.named_children() if any(True for _ in child.parameters())}
    if base not in children:
        return set()
    return {name for name, child in children.items() if name != base and not _attends(child)}


def _attends(module: nn.Module) -> bool:
    return any(ATTENTION.search(type(part).__name__) for part in module.modules())
