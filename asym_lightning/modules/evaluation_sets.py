"""Validation and test data that consist of several named sets, each with metrics of its own."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from lightning.pytorch.utilities.types import STEP_OUTPUT
from torchmetrics import MeanMetric, MetricCollection

from asym_lightning.modules.base import AdapterModule, StepOutput

EvaluationStage = Literal["val", "test"]


class _SetMetrics(NamedTuple):
    metrics: MetricCollection
    loss: MeanMetric


class EvaluationSetsModule(AdapterModule):
    """An `AdapterModule` that tells apart the sets of a data module with several, such as MNLI's or DomainBed's.

    The data module's attribute `evaluation_sets` maps `val` and `test` to the names of their sets, in
    the order of the data loaders: the metrics are then logged as `val/matched/accuracy` and so on. Without it, several
    data loaders go by their number, and a single one's metrics are logged as `val/accuracy`.

    A data module may also have a method `summarize(stage, values)`: it is given the values of all sets by name, such as
    `{"test/sketch/accuracy": 0.4}`, and what it returns is logged too.
    """

    _sets: dict[str, _SetMetrics]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> STEP_OUTPUT:
        """Log `val/loss` and the metrics over the epoch, for each set; callbacks get the `StepOutput`'s fields."""
        return self._evaluate("val", batch, dataloader_idx)._asdict()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> STEP_OUTPUT:
        """Log `test/loss` and the metrics over the epoch, for each set; callbacks get the `StepOutput`'s fields."""
        return self._evaluate("test", batch, dataloader_idx)._asdict()

    def on_validation_epoch_start(self) -> None:
        """Make the metrics of each validation set."""
        self._start_sets("val", self.trainer.val_dataloaders)

    def on_test_epoch_start(self) -> None:
        """Make the metrics of each test set."""
        self._start_sets("test", self.trainer.test_dataloaders)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of each validation set, and the data module's summary of them."""
        self._log_sets("val")

    def on_test_epoch_end(self) -> None:
        """Log the metrics of each test set, and the data module's summary of them."""
        self._log_sets("test")

    def _start_sets(self, stage: EvaluationStage, dataloaders: Any) -> None:
        count = len(dataloaders) if isinstance(dataloaders, (list, tuple)) else 1
        names = getattr(self._data, "evaluation_sets", {}).get(stage) or ([] if count == 1 else map(str, range(count)))
        common: MetricCollection = getattr(self, f"{stage}_metrics")
        self._sets = {
            name: _SetMetrics(common.clone(prefix=f"{stage}/{name}/").to(self.device), MeanMetric().to(self.device))
            for name in names
        }

    def _evaluate(self, stage: EvaluationStage, batch: Any, dataloader_idx: int) -> StepOutput:
        if not self._sets:
            return self._step_and_log(stage, batch)
        output = self.step(batch)
        metrics, loss = list(self._sets.values())[dataloader_idx]
        metrics.update(output.predictions, output.targets)
        loss.update(output.loss, len(output.targets))
        return output

    def _log_sets(self, stage: EvaluationStage) -> None:
        values: dict[str, float] = {}
        for name, (metrics, loss) in self._sets.items():
            if loss.update_called:
                values |= {key: float(value) for key, value in metrics.compute().items()}
                values[f"{stage}/{name}/loss"] = float(loss.compute())
        summarize = getattr(self._data, "summarize", None)
        if values and summarize is not None:
            values |= summarize(stage, values)
        # All processes hold the same values by now; `sync_dist` only keeps Lightning from warning that they might not.
        self.log_dict(values, sync_dist=True)
        self._sets = {}

    @property
    def _data(self) -> Any:
        return getattr(self.trainer, "datamodule", None)
