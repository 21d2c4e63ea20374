"""Import every module of a package, so that what registers itself in one of them is known."""

from __future__ import annotations

import importlib
import pkgutil


def import_modules(package: str) -> None:
    """Import the modules of a package; its sub-packages are left alone.

    Args:
        package: Name of the package, which is imported or being imported.

    Example:
        >>> import sys
        >>> import_modules("asym_lightning.adapters.init")
        >>> "asym_lightning.adapters.init.rand" in sys.modules
        True
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.ispkg:
            importlib.import_module(f"{package}.{module.name}")
