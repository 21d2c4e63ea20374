"""The commands beside Lightning's own: each is a module with a `main`, imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

COMMANDS = {
    "merge": "asym_lightning.cli.merge",
    "export": "asym_lightning.cli.export",
    "sweep": "asym_lightning.cli.sweep",
    "report": "asym_lightning.cli.report",
    "similarity": "asym_lightning.cli.similarity",
    "bounds": "asym_lightning.cli.bounds",
    "estimate": "asym_lightning.cli.estimate",
}


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one of `COMMANDS` and return its exit code."""
    return importlib.import_module(COMMANDS[name]).main(arguments)
