"""Write to every logger of a Trainer, and go on when one fails."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from asym_lightning.core.either_lightning import either

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LoggerFanout:
    """Hands numbers, histograms and pictures to all loggers; one that fails is warned of once, and left out then."""

    def __init__(self) -> None:
        self._failed: set[int] = set()

    def log(
        self,
        trainer: Trainer,
        metrics: Mapping[str, float],
        histograms: Mapping[str, Sequence[float]] | None = None,
        figures: Mapping[str, Figure] | None = None,
        pictures: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write from the first process, at the Trainer's step.

        Args:
            trainer: Whose loggers.
            metrics: Numbers by name.
            histograms: Values by name, for loggers that show distributions (TensorBoard, W&B).
            figures: Pictures by name, for loggers that show them (TensorBoard, W&B, MLflow).
            pictures: The same as pixels (height, width, 3), bytes.
        """
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        for logger in trainer.loggers:
            if id(logger) not in self._failed:
                self._try(logger, dict(metrics), histograms or {}, figures or {}, pictures or {}, step)

    def _try(
        self,
        logger: Logger,
        metrics: dict[str, float],
        histograms: Mapping[str, Sequence[float]],
        figures: Mapping[str, Figure],
        pictures: Mapping[str, np.ndarray],
        step: int,
    ) -> None:
        try:
            if metrics:
                logger.log_metrics(metrics, step=step)
            for name, values in histograms.items():
                _log_histogram(logger, name, values, step)
            for name, figure in figures.items():
                _log_figure(logger, name, figure, step)
            for name, picture in pictures.items():
                _log_picture(logger, name, picture, step)
        except Exception as error:
            self._failed.add(id(logger))
            warnings.warn(
                f"{type(logger).__name__} failed ({type(error).__name__}: {error}); the run goes on without it for "
                "adapter statistics and pictures.",
                stacklevel=2,
            )


def _log_histogram(logger: Logger, name: str, values: Sequence[float], step: int) -> None:
    if isinstance(logger, either(TensorBoardLogger)):
        logger.experiment.add_histogram(name, np.asarray(values), step)
    elif isinstance(logger, either(WandbLogger)):
        import wandb

        logger.log_metrics({name: wandb.Histogram(list(values))}, step=step)  # type: ignore[dict-item]


def _log_figure(logger: Logger, name: str, figure: Figure, step: int) -> None:
    if isinstance(logger, either(TensorBoardLogger)):
        logger.experiment.add_figure(name, figure, step)
    elif isinstance(logger, either(WandbLogger)):
        logger.log_image(name, [figure], step=step)
    elif isinstance(logger, either(MLFlowLogger)):
        logger.experiment.log_figure(logger.run_id, figure, f"{name}.png")


def _log_picture(logger: Logger, name: str, picture: np.ndarray, step: int) -> None:
    if isinstance(logger, either(TensorBoardLogger)):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, either(WandbLogger)):
        logger.log_image(name, [picture], step=step)
    elif isinstance(logger, either(MLFlowLogger)):
        logger.experiment.log_image(logger.run_id, picture, f"{name}_{step}.png")
