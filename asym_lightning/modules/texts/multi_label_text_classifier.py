"""Texts of which each may be of several classes, or of none, with any Hugging Face encoder or decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames, NotNegative
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.heads.multi_label_loss import MultiLabelLoss
from asym_lightning.modules.heads.multi_label_module import MultiLabelModule
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

NO_CLASS = -1


class MultiLabelTextClassifier(HeadedModule, MultiLabelModule):
    """Say of each class whether a text is of it.

    Batches are dictionaries with `input_ids` and `attention_mask` (batch, length), `token_type_ids` if the model has
    them, and `labels` (batch, most classes of one): the numbers of each text's classes, then -1.

    Logs `loss`, the mean of the classes' binary cross-entropies, `macro_f1`, the mean of the classes' F1, `micro_f1`,
    that of all decisions, `exact_match`, the share of texts with the right classes and no others, and `map`, the mean
    of the classes' average precisions. `predict` writes `predictions.jsonl` to the run's directory: the classes of each
    text, and the probability of each class.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with a sequence-classification head.
        label_names: Names of the classes by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        threshold: Probability from which a text is of a class.
        positive_weights: How many times a text that is of a class counts in the training loss, for each class; null
            counts it once.
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
    predictions_file = MultiLabelModule.predictions_file

    def __init__(
        self,
        backbone: Backbone,
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        threshold: Fraction = 0.5,
        positive_weights: Sequence[NotNegative] | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.threshold = threshold
        self.label_loss = MultiLabelLoss(positive_weights)

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model, whose config says that classes do not exclude one another."""
        model = super().build_backbone(source)
        if hasattr(model, "config"):
            model.config.problem_type = "multi_label_classification"  # type: ignore[union-attr]
        return model

    def class_targets(self, batch: dict[str, Any], num_classes: int) -> Tensor:
        """Return 1 for each class that is among a text's numbers."""
        labels = batch["labels"]
        places = labels.where(labels != NO_CLASS, num_classes)
        return labels.new_zeros(len(labels), num_classes + 1).scatter(1, places, 1)[:, :-1]

    def known_classes(self, batch: dict[str, Any]) -> Sequence[Sequence[int]]:
        """Return the numbers of each text's classes, as they are given."""
        return [[number for number in numbers if number != NO_CLASS] for numbers in batch["labels"].tolist()]

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens, of the first class each."""
        batch = shape.text(self._longest)
        labels = torch.zeros(shape.known("size"), 1, dtype=torch.int64)
        return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"]), "labels": labels}

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return what the base class does, by the texts' own ids where they have any."""
        return super().prediction_rows(prediction, batch, batch.get("ids", identifiers))
