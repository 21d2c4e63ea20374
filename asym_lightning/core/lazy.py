"""Packages that import what they offer when it is asked for, so that one class does not bring in all others.

Such a package writes its imports where type checkers, editors and readers look for them, and leaves them to a function:

    if TYPE_CHECKING:
        from asym_lightning.data.images.digits import DigitsDataModule
    else:
        __getattr__, __dir__ = lazy_imports(__name__)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from asym_lightning.core.extras import extra_named


def lazy_imports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of a package whose imports are those under its `if TYPE_CHECKING:`.

    Source: PEP 562.

    Args:
        package: Name of the package, which is being imported.
    """

    def get(name: str) -> Any:
        module = imported_names(package).get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with extra_named(name):
            value = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without this function
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *imported_names(package)})


@cache
def imported_names(package: str) -> Mapping[str, str]:
    """Names that a lazy package offers and the modules that they are from; nothing but the package is imported.

    >>> imported_names("asym_lightning.strategies")
    {'FSDP2Strategy': 'asym_lightning.strategies.fsdp2'}
    """
    spec = find_spec(package)
    source = spec.loader.get_source(package)  # type: ignore[union-attr]  # every loader of source files has it
    return {
        alias.name: node.module
        for branch in ast.parse(source).body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
