"""Classification and regression of texts, and of pairs of texts, with any Hugging Face encoder or decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForSequenceClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames, NotNegative
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_loss import ClassLoss
from asym_lightning.modules.heads.class_rows import class_rows, value_rows, with_identifiers
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.metrics.text_metrics import REGRESSION_TASKS, check_text_task, text_metrics
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class TextClassifier(HeadedModule):
    """Classify or score texts with a Hugging Face model: a new head that is trained, and the metrics of the task.

    With the head trains whatever else the checkpoint has no weights for, such as the pooler of a BERT.

    Batches are dictionaries with `input_ids` and `attention_mask` (batch, length), `token_type_ids` if the model
    has them, and `labels` (batch,): class numbers in the order of `label_names`, or scores. For prediction they
    may hold `ids`, a list of names of the rows, and `row`, their numbers.

    `predict` writes `predictions.csv` to the run's directory, with the id, the predicted class or score and the
    probability of each class of every row.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with a sequence-classification head.
        task: `classification`, `regression`, or a task of GLUE; decides the loss and the metrics.
        label_names: Names of the classes by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        class_weights: Weight of each class in the training loss; null weighs all rows alike.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1]; in training alone.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If the task is unknown, an argument is out of range, or there is an `adapter` and
            `train_backbone` as well.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, num_labels=2)
        >>> module = TextClassifier(BertForSequenceClassification(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.logits({"input_ids": torch.tensor([[1, 2, 3]])}).shape
        torch.Size([1, 2])
    """

    auto_class = AutoModelForSequenceClassification

    def __init__(
        self,
        backbone: Backbone,
        task: str = "classification",
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        class_weights: Sequence[NotNegative] | None = None,
        label_smoothing: Fraction = 0.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(
            backbone=backbone,
            adapter=adapter,
            train_backbone=train_backbone,
            optimizer=optimizer,
            scheduler=scheduler,
            backbone_options=backbone_options,
        )
        check_text_task(task)
        self.task = task
        self.is_regression = task in REGRESSION_TASKS
        if self.is_regression and (label_names or class_weights or label_smoothing):
            raise ValueError(
                f"`label_names`, `class_weights` and `label_smoothing` are for classes; the task {task!r} has scores."
            )
        self.label_names = None if label_names is None else list(label_names)
        self.class_loss = ClassLoss(class_weights, label_smoothing)
        self.num_scores = 1 if self.is_regression else None

    @property
    def _task(self) -> str:
        return f"the task {self.task!r}"

    def _check_outputs(self) -> None:
        super()._check_outputs()
        self.class_loss.check_classes(self.num_outputs)

    def build_metrics(self) -> MetricCollection:
        """Return the metrics of the task."""
        return text_metrics(self.task, self.num_outputs)

    # Training and evaluation

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the loss: cross-entropy, or the mean squared error in regression."""
        logits, labels = self.logits(batch), batch["labels"]
        if self.is_regression:
            scores, targets = logits.squeeze(-1).float(), labels.float()
            return StepOutput(F.mse_loss(scores, targets), scores, targets)
        loss = self.class_loss(logits, labels, is_training=self.training)
        return StepOutput(loss, logits.argmax(dim=-1), labels, logits)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens, and labels or scores."""
        batch = shape.text(self._longest)
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        dtype = torch.float32 if self.is_regression else torch.int64
        batch["labels"] = torch.zeros(shape.known("size"), dtype=dtype)
        return batch

    # Prediction

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the class probabilities (batch, classes), or the scores (batch,); labels are not used."""
        logits = self.logits(batch).float()
        return logits.squeeze(-1) if self.is_regression else logits.softmax(dim=-1)

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the predicted class or score, each class's probability, and the rows' own ids where they have any.

        Where the label is known it is beside the predicted one, as `target`.
        """
        names, targets = batch.get("ids", identifiers), batch.get("labels")
        if self.is_regression:
            return with_identifiers(value_rows(prediction, targets), names)
        classes = self.label_names or [str(number) for number in range(self.num_outputs)]
        return with_identifiers(class_rows(prediction, classes, targets), names)
