"""Scores of a classifier by class, as tables and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection
from typing_extensions import override

from asym_lightning.analysis.class_figures import confusion_figure, png, reliability_figure
from asym_lightning.analysis.class_scores import (
    Values,
    class_metrics,
    classes_without_sample,
    confusion_csv,
    is_scalar,
    reliability_csv,
    scores_csv,
)
from asym_lightning.core.ddp import from_all_processes
from asym_lightning.core.extras import check_installed
from asym_lightning.core.files import atomic_file, write_text
from asym_lightning.core.loggers import LoggerFanout
from asym_lightning.core.messages import listed
from asym_lightning.core.options import CheckedArguments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Stage = Literal["test", "val"]


class ClassScores(CheckedArguments, Callback):
    """Say of a classifier how well it does on each class, and how far its probabilities can be trusted.

    It works when `trainer.test` runs, and `trainer.validate`; training and its validation are left alone. It logs
    `test/macro_f1`, `test/calibration_error` and, from 11 classes, `test/top5_accuracy`, and writes to the run's folder

    | file                                  | what it is                                                        |
    |---------------------------------------|-------------------------------------------------------------------|
    | `scores.csv`                          | precision, recall, F1, samples and predictions of each class      |
    | `confusion.csv`, `confusion.png`      | samples by class and predicted class; up to 1,000 classes         |
    | `reliability.csv`, `reliability.png`  | accuracy by confidence, which is equal in a calibrated model      |

    Files of validation data begin with `val_`, and several data sets have files each, such as `scores_matched.csv`.
    Pictures need matplotlib, and go to TensorBoard, W&B and MLflow, too. All numbers are of torchmetrics and of all
    processes' samples.

    The classifiers of this package have it in `lightning test` and in the test of `fit`. For another module add it, and
    let `test_step` return a dictionary with logits and labels.

    Args:
        logits: Key of the logits of each class (batch, classes) in what the step returns; log-probabilities will do.
        targets: Key of the class numbers (batch,).
        class_names: Names of the classes by number; null asks the module and the data module for their `label_names`.

    Example:
        >>> ClassScores(targets="labels").targets
        'labels'
    """

    def __init__(
        self, logits: str = "logits", targets: str = "targets", class_names: Sequence[str] | None = None
    ) -> None:
        self.logits = logits
        self.targets = targets
        self.class_names = None if class_names is None else list(class_names)
        self._sets: dict[int, MetricCollection] = {}
        self._lacks_warned = False
        self._loggers = LoggerFanout()

    @override
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self._count(pl_module, outputs, dataloader_idx)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch, unless validation is a part of training."""
        if trainer.state.fn == "validate":
            self._count(pl_module, outputs, dataloader_idx)

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write the scores."""
        self._finish(trainer, pl_module, "test")

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and write the scores, unless validation is a part of training."""
        if trainer.state.fn == "validate":
            self._finish(trainer, pl_module, "val")

    def _count(self, pl_module: LightningModule, outputs: Any, dataloader_idx: int) -> None:
        if not isinstance(outputs, Mapping) or not {self.logits, self.targets} <= outputs.keys():
            if not self._lacks_warned:
                self._lacks_warned = True
                rank_zero_warn(
                    f"`ClassScores` has nothing to score: let the step of {type(pl_module).__name__} return a "
                    f"dictionary with `{self.logits}` (batch, classes) and `{self.targets}` (batch,)."
                )
            return
        logits, targets = outputs[self.logits], outputs[self.targets]
        if logits is None:  # the module says that there are no classes, as in a regression
            return
        _check_shapes(logits, targets)
        if dataloader_idx not in self._sets:
            self._sets[dataloader_idx] = class_metrics(logits.shape[1]).to(logits.device)
        self._sets[dataloader_idx].update(logits.detach().float().softmax(dim=-1), targets)

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: Stage) -> None:
        here = {number: _num_classes(metrics) for number, metrics in self._sets.items()}
        # A process may have had no batch of some set, and still has to take part.
        numbers = {number: classes for of_process in from_all_processes(here) for number, classes in of_process.items()}
        sets, self._sets = self._sets, {}
        folder = trainer.log_dir  # of all processes: the Trainer sends it to them
        set_names = _set_names(trainer, stage, numbers)
        for number in sorted(numbers):
            names = self._names(trainer, pl_module, numbers[number])  # in all processes, or one alone would fail
            metrics = sets.get(number) or class_metrics(numbers[number]).to(pl_module.device)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*NaN values found in confusion matrix")  # said below, by name
                values = {name: value.cpu() for name, value in metrics.compute().items()}
            scalars = {name: float(value) for name, value in values.items() if is_scalar(name)}
            prefix = f"{stage}/{set_names[number]}/" if set_names[number] else f"{stage}/"
            # All processes hold the same values; `sync_dist` only keeps Lightning from warning that they might not.
            pl_module.log_dict({f"{prefix}{name}": value for name, value in scalars.items()}, sync_dist=True)
            if trainer.is_global_zero:
                self._write(trainer, values, names, folder, stage, set_names[number])

    def _names(self, trainer: Trainer, pl_module: LightningModule, num_classes: int) -> list[str]:
        if self.class_names is not None:
            if len(self.class_names) != num_classes:
                raise ValueError(f"`class_names` are {len(self.class_names)}, but there are {num_classes} classes.")
            return self.class_names
        for source in (pl_module, getattr(trainer, "datamodule", None)):
            names = getattr(source, "label_names", None)
            if names is not None and len(names) == num_classes:
                return list(map(str, names))
        return [str(number) for number in range(num_classes)]

    def _write(
        self, trainer: Trainer, values: Values, names: Sequence[str], folder: str | None, stage: Stage, set_name: str
    ) -> None:
        if empty := classes_without_sample(values, names):
            rank_zero_warn(
                f"no sample of the {stage} data{f' {set_name}' if set_name else ''} is of class "
                f"{listed(empty, 5)}: their recall and F1 are given as 0."
            )
        tables = {"scores": scores_csv(values, names), "reliability": reliability_csv(values)}
        if "confusion" in values:
            tables["confusion"] = confusion_csv(values, names)
        figures = self._figures(values, names, f"{stage} data{f', {set_name}' if set_name else ''}")
        begin, end = "" if stage == "test" else f"{stage}_", f"_{set_name}" if set_name else ""
        if folder is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # it is set by a connector
            for name, table in tables.items():
                write_text(Path(folder, f"{begin}{name}{end}.csv"), table)
            for name, figure in figures.items():
                with atomic_file(Path(folder, f"{begin}{name}{end}.png")) as staging:
                    staging.write_bytes(png(figure))
            rank_zero_info(f"scores         {Path(folder, f'{begin}scores{end}.csv')}")
        shown = {f"{stage}/{f'{set_name}/' if set_name else ''}{name}": figure for name, figure in figures.items()}
        self._loggers.log(trainer, {}, figures=shown)

    def _figures(self, values: Values, names: Sequence[str], data: str) -> dict[str, Figure]:
        try:
            check_installed("matplotlib", "confusion.png")
        except ModuleNotFoundError as error:
            rank_zero_info(f"{error} It is left out, as is reliability.png.")
            return {}
        figures = {"reliability": reliability_figure(values, f"Reliability, {data}")}
        if "confusion" in values:
            figures["confusion"] = confusion_figure(values, names, f"Confusion, {data}")
        return figures


def _check_shapes(logits: Tensor, targets: Tensor) -> None:
    fit = logits.ndim == 2 and logits.shape[1] > 1 and targets.shape == logits.shape[:1]
    if not fit or targets.is_floating_point():
        raise ValueError(
            "`ClassScores` takes logits (batch, classes) of two classes or more and class numbers (batch,), not "
            f"{tuple(logits.shape)} of {logits.dtype} and {tuple(targets.shape)} of {targets.dtype}."
        )


def _num_classes(metrics: MetricCollection) -> int:
    return int(metrics["recall"].num_classes)  # type: ignore[arg-type]  # of every multiclass metric


def _set_names(trainer: Trainer, stage: Stage, numbers: Mapping[int, Any]) -> dict[int, str]:
    """What the data sets are called: by the data module's `evaluation_sets`, else by number; "" if there is one."""
    given = getattr(getattr(trainer, "datamodule", None), "evaluation_sets", {}).get(stage)
    if given:
        return {number: given[number] for number in numbers}
    return {number: str(number) if len(numbers) > 1 else "" for number in numbers}
