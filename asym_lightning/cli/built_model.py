"""Build the model that a config describes, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

from asym_lightning.cli.training import TrainingCLI


class _ModelOnly(TrainingCLI):
    def __init__(self, args: Sequence[str]) -> None:
        # Past TrainingCLI's own constructor: without subcommands the options are those of a run, and nothing is run.
        LightningCLI.__init__(
            self, args=list(args), run=False, seed_everything_default=0, auto_configure_optimizers=False,
            save_config_callback=None, trainer_defaults={"logger": False},
        )  # fmt: skip


def build_model(arguments: Sequence[str]) -> LightningModule:
    """Return the module of a config with its backbone built and adapted.

    Args:
        arguments: Options as `fit` takes them, such as `--config configs/quickstart.yaml`.
    """
    model = _ModelOnly(arguments).model
    model.configure_model()
    return model
