"""The command line in this process, as far as what it is given goes: an accepted run is short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asym_lightning.cli.commands import TOOLS, run_tool
from asym_lightning.cli.config_files import with_config_paths
from asym_lightning.cli.first_answer import first_answer
from asym_lightning.cli.training import TrainingCLI

SHORT = (
    "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--quiet",
)  # fmt: skip


def run_command(arguments: Sequence[str]) -> None:
    """Run a command; what goes wrong is raised, as :func:`asym_lightning.cli.main` catches it."""
    if arguments[0] in TOOLS:
        run_tool(arguments[0], list(arguments[1:]))
        return
    given = with_config_paths(arguments)
    if first_answer(given) is None:
        TrainingCLI(given)


def fit_in(folder: Path, *options: str, configs: Sequence[str] = ("quickstart",)) -> None:
    """A short fit with some options, which win."""
    of_configs = [part for config in configs for part in ("--config", config)]
    run_command(["fit", *of_configs, *SHORT, *options])
