"""What is evaluated without a training checkpoint: the adapter of a directory, or what is as it starts."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from asym_lightning.adapters import trainable_parameters
from asym_lightning.adapters.layers.lookup import factors_by_name
from asym_lightning.cli.run_checkpoints import newest_checkpoint
from asym_lightning.core.run_files import RUNS, find_checkpoints
from asym_lightning.lifecycle.adapter_directory import load_with_outside
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.label_names import HasLabelNames


class Untrained(Callback):
    """Load an adapter into a module before it is evaluated; without one, say what of the module is untrained.

    Args:
        directory: The adapter's; None where there is none.
    """

    def __init__(self, directory: str | None) -> None:
        self.directory = directory

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load it or say so."""
        self._start(trainer, pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load it or say so."""
        self._start(trainer, pl_module)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load it or say so."""
        self._start(trainer, pl_module)

    def _start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.directory is None:
            warn_of_fresh_parts(module)
        else:
            trained = dict(trainable_parameters(module))
            load_with_outside(module, adapted_backbone(trainer, module), trained, self.directory)


def warn_of_fresh_parts(module: LightningModule) -> None:
    """Warn of an adapter that is as it starts, which changes nothing, and of a head of random weights."""
    if getattr(module, "adapter_directory", None) is not None:
        return
    factors = {id(factor) for factor in factors_by_name(module).values()}
    others = [parameter for _, parameter in trainable_parameters(module) if id(parameter) not in factors]
    has_head = isinstance(module, HasLabelNames) and bool(others)
    fresh = ["the adapter"] * bool(factors) + ["the head"] * has_head
    if fresh:
        newest = newest_checkpoint(find_checkpoints(RUNS))
        example = f", such as {newest}" if newest else ""
        rank_zero_warn(
            f"There is no `--ckpt_path`: {' and '.join(fresh)} {'are' if len(fresh) > 1 else 'is'} fresh, and nothing "
            f"that was trained is evaluated. It takes `best`, `last`, a run's folder or a file{example}."
        )
