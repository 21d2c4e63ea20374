"""Texts of which each may be of several classes, or of none, with any Hugging Face encoder or decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelExactMatch, MultilabelF1Score
from transformers import AutoModelForSequenceClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.class_rows import with_identifiers
from asym_lightning.modules.headed_text_module import HeadedTextModule
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

NO_CLASS = -1


class MultiLabelTextClassifier(HeadedTextModule):
    """Say of each class whether a text is of it.

    Batches are dictionaries with `input_ids` and `attention_mask` (batch, length), `token_type_ids` if the model has
    them, and `labels` (batch, most classes of one): the numbers of each text's classes, then -1.

    Logs `loss`, the mean of the classes' binary cross-entropies, `macro_f1`, the mean of the classes' F1, `micro_f1`,
    that of all decisions, and `exact_match`, the share of texts with the right classes and no others. `predict` writes
    `predictions.jsonl` to the run's directory: the classes of each text, and the probability of each class.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with a sequence-classification head.
        label_names: Names of the classes by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        threshold: Probability from which a text is of a class.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If the threshold is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, num_labels=3)
        >>> module = MultiLabelTextClassifier(BertForSequenceClassification(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.step({"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[0, 2]])}).targets
        tensor([[1, 0, 1]])
    """

    auto_class = AutoModelForSequenceClassification
    predictions_file = "predictions.jsonl"

    def __init__(
        self,
        backbone: Backbone,
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        threshold: Fraction = 0.5,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.threshold = threshold

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model, whose config says that classes do not exclude one another."""
        model = super().build_backbone(source)
        if hasattr(model, "config"):
            model.config.problem_type = "multi_label_classification"  # type: ignore[union-attr]
        return model

    def build_metrics(self) -> MetricCollection:
        """Return F1 and exact match; they take 0 and 1 for each class, which are not looked at first."""
        count = self.num_outputs
        scores = {
            f"{kind}_f1": MultilabelF1Score(count, average=kind, validate_args=False) for kind in ("macro", "micro")
        }
        return MetricCollection({**scores, "exact_match": MultilabelExactMatch(count, validate_args=False)})

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean binary cross-entropy, and of each class whether the texts are of it."""
        logits, labels = self.logits(batch).float(), batch["labels"]
        places = labels.where(labels != NO_CLASS, self.num_outputs)
        targets = labels.new_zeros(len(logits), self.num_outputs + 1).scatter(1, places, 1)[:, :-1]
        loss = F.binary_cross_entropy_with_logits(logits, targets.float())
        return StepOutput(loss, (logits.sigmoid() >= self.threshold).long(), targets)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens, of the first class each."""
        batch = shape.text(self._longest)
        labels = torch.zeros(shape.known("size"), 1, dtype=torch.int64)
        return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"]), "labels": labels}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the probability of each class (batch, classes)."""
        return self.logits(batch).float().sigmoid()

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the classes of each text, the probability of each class, and the known classes if there are some."""
        names = self.label_names or [str(number) for number in range(self.num_outputs)]
        rows = []
        for probabilities, known in zip(prediction.tolist(), batch["labels"].tolist(), strict=True):
            by_name = dict(zip(names, probabilities, strict=True))
            targets = [names[number] for number in known if number != NO_CLASS]
            labels = [name for name, probability in by_name.items() if probability >= self.threshold]
            rows.append({"labels": labels, **({"targets": targets} if targets else {}), "probabilities": by_name})
        return with_identifiers(rows, batch.get("ids", identifiers))
