"""Files that a model needs beside its weights for the library that it is meant for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasOwnFiles(Protocol):
    """A module whose model is not whole by its weights and its config alone."""

    def write_own_files(self, folder: Path) -> None:
        """Write what is lacking to a folder with the merged model, or with the adapter."""


def write_own_files(module: Any, folder: Path) -> None:
    """Write the files of a module that has some."""
    if isinstance(module, HasOwnFiles):
        module.write_own_files(folder)
