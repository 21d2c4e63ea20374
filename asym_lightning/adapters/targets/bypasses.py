"""Host code that does more with a layer than to call it, in which an adapter beside or a wrapper around it has no part.

It reads the weight, and does not call the layer; or it asks for how the layer was set up.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from torch import nn

from asym_lightning.core.names import submodule
from asym_lightning.core.sources import methods_naming, names_any

_METADATA = {"dtype", "device", "shape", "ndim", "requires_grad", "is_meta", "size", "dim", "numel"}
# Code that sets weights and computes nothing with them.
_SETTERS = {"__init__", "_init_weights", "init_weights", "reset_parameters", "extra_repr", "__repr__"}
# What layers keep of how they were set up, beside the widths, which whatever is wrapped around them has too.
_SETTINGS = frozenset(nn.Conv2d.__constants__) | frozenset(nn.Embedding.__constants__)
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def open_bypasses(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Make known bypassing hosts call their layer, which costs less than to form the weight for them.

    timm's BEiT, EVA and SwinV2 compute ``F.linear(x, qkv.weight, cat(q_bias, 0, v_bias))`` but call ``qkv`` and add the
    same bias afterwards where ``qkv_bias_separate`` is set, which is the same function but for its rounding.

    Returns:
        Those of the named layers whose hosts went past them till now.
    """
    opened = set()
    for name in names:
        parent = submodule(model, name.rpartition(".")[0])
        if _can_be_opened(parent):
            if not parent.qkv_bias_separate:
                opened.add(name)
            parent.qkv_bias_separate = True  # type: ignore[assignment]
    return opened


def close_bypass(model: nn.Module, name: str) -> None:
    """Undo :func:`open_bypasses` for a layer of those that it returned."""
    submodule(model, name.rpartition(".")[0]).qkv_bias_separate = False  # type: ignore[assignment]


def read_layers(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the named layers whose weight is read by code of a module that they lie in.

    Found in the source of the classes: ``self.dt_proj.weight`` in a method of the module that holds ``dt_proj``, unless
    it asks for no more than a dtype or a shape. A layer that is read once in a while and called otherwise is one of
    them.

    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16)
    >>> sorted(read_layers(encoder, ["linear1", "self_attn.out_proj"]))
    ['linear1', 'self_attn.out_proj']
    """
    return {name for name in names if any(path in _read_by(cls) for cls, path in _ancestors(model, name))}


def questioned_layers(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of the named layers that code of a module that they lie in asks for their stride, padding and the like.

    It does so in its methods, or in a function of its file that it gives the layer to, as those convolutions are that
    pad their input as TensorFlow does.
    """
    return {name for name in names if any(path in _questioned_by(cls) for cls, path in _ancestors(model, name))}


@functools.cache
def _read_by(cls: Any) -> frozenset[tuple[str, ...]]:
    """Layers whose weight the methods of a class read, as paths of attributes below ``self``, indices left out."""
    found: set[tuple[str, ...]] = set()
    for method in methods_naming(cls, "weight"):
        if method.name not in _SETTERS:
            found.update(_read_in(method, {"weight"}))
    return frozenset(found)


@functools.cache
def _questioned_by(cls: Any) -> frozenset[tuple[str, ...]]:
    """Layers of which the methods of a class, and the functions that these call, read settings; paths as above."""
    functions = {
        name
        for base in cls.__mro__[: cls.__mro__.index(nn.Module)]
        for name, member in vars(sys.modules[base.__module__]).items()
        if inspect.isfunction(member) and names_any(member.__code__, _SETTINGS)
    }
    found: set[tuple[str, ...]] = set()
    for method in methods_naming(cls, *_SETTINGS, *functions):
        if method.name not in _SETTERS:
            found.update(_read_in(method, _SETTINGS, functions))
    return frozenset(found)


def _read_in(
    method: ast.AST, attributes: Collection[str], functions: Collection[str] = ()
) -> Iterator[tuple[str, ...]]:
    """Paths of what the attributes are read of, and of what is given to the functions."""
    locals_: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(method):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (path := _path(node.value, {})):
            locals_[node.targets[0].id] = path
    asked = {id(n.value) for n in ast.walk(method) if isinstance(n, ast.Attribute) and n.attr in _METADATA}
    asked |= {id(a) for n in ast.walk(method) if isinstance(n, ast.Call) and _is_question(n) for a in n.args}
    read: list[ast.AST] = []
    for node in ast.walk(method):
        if isinstance(node, ast.Attribute) and node.attr in attributes and id(node) not in asked:
            read.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            read += node.args
    yield from (path for node in read if (path := _path(node, locals_)))


def _path(node: ast.AST, locals_: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """``self.a[0].b`` as ``("a", "b")``, ``()`` for ``self`` and ``None`` for anything else."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        return () if node.id == "self" else locals_.get(node.id)
    if isinstance(node, ast.Attribute):
        above = _path(node.value, locals_)
        return None if above is None else (*above, node.attr)
    return None


def _is_question(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "type", "hasattr")


def _ancestors(model: nn.Module, name: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The classes of the modules that a layer lies in, from the nearest, and its path below each, indices left out."""
    parts = name.split(".")
    for i in range(len(parts) - 1, -1, -1):
        module = submodule(model, ".".join(parts[:i]))
        if not isinstance(module, _CONTAINERS) and not _can_be_opened(module):
            yield type(module), tuple(part for part in parts[i:] if not part.isdigit())


def _can_be_opened(module: nn.Module) -> bool:
    return hasattr(module, "qkv_bias_separate") and getattr(module, "q_bias", None) is not None
