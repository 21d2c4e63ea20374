"""Build what a config describes, and run nothing of it, or no more than its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from typing_extensions import override

from asym_lightning.cli.first_answer import check_given
from asym_lightning.cli.given import Given
from asym_lightning.cli.training import TrainingCLI

# What a run has to leave out that ends before its first step.
_SHORT = ("logger=false", "min_epochs=null", "min_steps=null", "limit_val_batches=0", "enable_progress_bar=false")


class BuiltRun(TrainingCLI):
    """The model, data and Trainer of a config, without a subcommand.

    Args:
        args: Options as `fit` takes them, such as `--config configs/quickstart.yaml`.
    """

    def __init__(self, args: Sequence[str]) -> None:
        check_given("fit", Given.parse(args))
        # Past TrainingCLI's own constructor: without subcommands the options are those of a run, and nothing is run.
        LightningCLI.__init__(
            self, args=list(args), run=False, seed_everything_default=0, auto_configure_optimizers=False,
            save_config_callback=None, trainer_defaults={"logger": False},
        )  # fmt: skip


def build_model(arguments: Sequence[str]) -> LightningModule:
    """Return the module of a config with its backbone built and adapted.

    Args:
        arguments: Options as `fit` takes them.
    """
    model = BuiltRun(arguments).model
    model.configure_model()
    return model


def start_run(
    arguments: Sequence[str], act: Callable[[Trainer, LightningModule], None], callbacks: Sequence[Callback] = ()
) -> None:
    """Start the run of a config, with data, strategy and precision as they are, and do something else than training.

    Of the config's own callbacks only those take part that adapt the module. Nothing is logged or saved.

    Args:
        arguments: Options as `fit` takes them.
        act: Called where training would begin, in every process.
        callbacks: Take part beside.
    """
    run = BuiltRun([*arguments, *(f"--trainer.{option}" for option in _SHORT)])
    adapting = [c for c in run.trainer.callbacks if hasattr(c, "adapted_backbone_name")]  # type: ignore[attr-defined]
    run.trainer.callbacks = [*adapting, *callbacks, _ActAndStop(act)]  # type: ignore[attr-defined]
    run.trainer.fit(run.model, datamodule=run.datamodule)


class _ActAndStop(Callback):
    def __init__(self, act: Callable[[Trainer, LightningModule], None]) -> None:
        self._act = act

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._act(trainer, pl_module)
        trainer.should_stop = True
