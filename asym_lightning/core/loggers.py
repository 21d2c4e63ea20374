"""Write to every logger of a Trainer, and go on when one fails."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from asym_lightning.core.either_lightning import either


class LoggerFanout:
    """Hands numbers and histograms to all loggers; one that fails is warned of once and left out from then on."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    def log(
        self,
        trainer: Trainer,
        metrics: Mapping[str, float],
        histograms: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write from the first process, at the Trainer's step.

        Args:
            trainer: Whose loggers.
            metrics: Numbers by name.
            histograms: Values by name, for loggers that show distributions (TensorBoard, W&B).
        """
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        for logger in trainer.loggers:
            if id(logger) not in self._failed:
                self._try(logger, dict(metrics), histograms or {}, step)

    def _try(
        self, logger: Logger, metrics: dict[str, float], histograms: Mapping[str, Sequence[float]], step: int
    ) -> None:
        try:
            logger.log_metrics(metrics, step=step)
            for name, values in histograms.items():
                _log_histogram(logger, name, values, step)
        except Exception as error:
            self._failed.add(id(logger))
            warnings.warn(
                f"{type(logger).__name__} failed ({type(error).__name__}: {error}); training goes on without it for "
                "adapter statistics.",
                stacklevel=2,
            )


def _log_histogram(logger: Logger, name: str, values: Sequence[float], step: int) -> None:
    if isinstance(logger, either(TensorBoardLogger)):
        logger.experiment.add_histogram(name, np.asarray(values), step)
    elif isinstance(logger, either(WandbLogger)):
        import wandb

        logger.log_metrics({name: wandb.Histogram(list(values))}, step=step)  # type: ignore[dict-item]
