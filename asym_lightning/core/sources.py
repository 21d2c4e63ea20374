"""The source of a class's methods, of those alone that may be of interest."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Iterator
from types import CodeType
from typing import Any

from torch import nn

Method = ast.FunctionDef | ast.AsyncFunctionDef


def methods_naming(cls: Any, *names: str) -> Iterator[Method]:
    """The methods of a class of modules, and functions within them, whose code names one of some attributes or globals.

    A method's code tells the names in it at once. To look for them in the source of the class, Python would parse the
    whole file that the class is in, which for one of timm takes as long as to build the model.

    >>> [method.name for method in methods_naming(nn.TransformerEncoderLayer, "linear2")]
    ['__init__', 'forward', '_ff_block']
    """
    for base in cls.__mro__[: cls.__mro__.index(nn.Module)]:
        for function in (f for member in vars(base).values() for f in _functions(member)):
            if names_any(function.__code__, names):
                try:
                    source = inspect.getsource(function)
                    tree = ast.parse(f"class _:\n{source}" if source[0].isspace() else source)
                except (OSError, SyntaxError):  # made at run time
                    continue
                yield from (node for node in ast.walk(tree) if isinstance(node, Method))


def _functions(member: Any) -> Iterator[Any]:
    parts = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
    return (f for f in map(inspect.unwrap, filter(callable, parts)) if inspect.isfunction(f))


def names_any(code: CodeType, names: Collection[str]) -> bool:
    """Whether code names one of some attributes or globals."""
    parts = (part for part in code.co_consts if isinstance(part, CodeType))
    return not set(names).isdisjoint(code.co_names) or any(names_any(part, names) for part in parts)
