"""What classifiers have in common whose classes do not exclude one another, whatever they classify."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection

from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.base import StepOutput
from asym_lightning.modules.heads.class_rows import with_identifiers
from asym_lightning.modules.heads.classifier_module import ClassifierModule
from asym_lightning.modules.heads.multi_label_loss import MultiLabelLoss
from asym_lightning.modules.metrics.multi_label_metrics import multi_label_metrics


class MultiLabelModule(ClassifierModule):
    """Says of each class whether something is of it.

    Stands after the class of the kind of data, which makes logits: `class Mine(TimmModule, MultiLabelModule)`.

    Attributes:
        threshold: Probability from which something is of a class.
        label_loss: The loss.
    """

    predictions_file = "predictions.jsonl"
    threshold: float
    label_loss: MultiLabelLoss

    @abstractmethod
    def logits(self, batch: Any) -> Tensor:
        """Return what the backbone says of each class (batch, classes)."""

    @abstractmethod
    def class_targets(self, batch: Any, num_classes: int) -> Tensor | None:
        """Return 1 for each class that a sample is of, and 0 (batch, classes); None where that is not known."""

    def known_classes(self, batch: Any) -> Sequence[Sequence[int]] | None:
        """Return the numbers of the classes that each sample is of; None where that is not known."""
        targets = self.class_targets(batch, self.num_outputs)
        return None if targets is None else [row.nonzero().flatten().tolist() for row in targets]

    def build_metrics(self) -> MetricCollection:
        """Return F1, exact match and mean average precision."""
        self.label_loss.check_classes(self.num_outputs)
        return multi_label_metrics(self.num_outputs, self.threshold)

    def step(self, batch: Any) -> StepOutput:
        """Return the mean binary cross-entropy, and the probability of each class."""
        logits = self.logits(batch).float()
        targets = self.class_targets(batch, logits.shape[1])
        assert targets is not None
        return StepOutput(self.label_loss(logits, targets, is_training=self.training), logits.sigmoid(), targets)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the probability of each class (batch, classes)."""
        return self.logits(batch).float().sigmoid()

    def prediction_rows(self, prediction: Tensor, batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the classes of each sample, the probability of each class, and the known classes if there are some."""
        names = self.label_names or [str(number) for number in range(prediction.shape[1])]
        rows = []
        for probabilities, known in zip(
            prediction.tolist(), self.known_classes(batch) or [[]] * len(prediction), strict=True
        ):
            by_name = dict(zip(names, probabilities, strict=True))
            targets = [names[number] for number in known]
            labels = [name for name, probability in by_name.items() if probability >= self.threshold]
            rows.append({"labels": labels, **({"targets": targets} if targets else {}), "probabilities": by_name})
        return with_identifiers(rows, identifiers)
