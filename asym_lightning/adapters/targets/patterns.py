"""Patterns for names of layers: dotted suffixes and globs."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` is a dotted suffix of ``name``.

    ``*`` stands for any text within one component, and ``**`` for any number of components, none too.

    >>> matches("blocks.0.attn.qkv", "attn.qkv"), matches("blocks.0.attn.qkv", "qk")
    (True, False)
    >>> matches("layer.0.output.dense", "layer.*.output.dense")
    True
    >>> matches("vision_tower.encoder.layers.0.mlp.fc1", "vision_tower.**.fc*")
    True
    """
    wanted, found = pattern.split("."), name.split(".")
    if "**" not in wanted:
        found = found[-len(wanted) :]
        return len(found) == len(wanted) and all(map(fnmatchcase, found, wanted))
    return any(_fits(found[start:], wanted) for start in range(len(found) + 1))


def _fits(found: list[str], wanted: list[str]) -> bool:
    if not wanted:
        return not found
    if wanted[0] == "**":
        return any(_fits(found[skipped:], wanted[1:]) for skipped in range(len(found) + 1))
    return bool(found) and fnmatchcase(found[0], wanted[0]) and _fits(found[1:], wanted[1:])


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that ``pattern`` matches; a full name means that one alone, though it be the suffix of others."""
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if matches(name, pattern)]


def is_within(name: str, parents: Iterable[str]) -> bool:
    """Whether a module is one of ``parents`` or lies in one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def suffixes(names: Iterable[str]) -> list[str]:
    """The last two components of every name, numbers left out: what a pattern may have been meant for.

    >>> suffixes(["blocks.0.attn.qkv", "blocks.1.attn.qkv", "head"])
    ['attn.qkv', 'head']
    """
    words = ([part for part in name.split(".") if not part.isdigit()] for name in names if name)
    return sorted({".".join(parts[-2:]) for parts in words if parts})
