"""Image classification with any timm backbone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from asym_lightning.adapters import AdapterConfig
from asym_lightning.modules.base import AdapterModule, Backbone, StepOutput
from asym_lightning.modules.schedule import WarmupSchedule
from asym_lightning.modules.timm_backbone import create_timm_backbone


class ImageClassifier(AdapterModule):
    """Classify images with a timm backbone: cross-entropy, accuracy, a new head that is trained.

    Batches are pairs `(images, labels)`: images (batch, channels, height, width), labels (batch,).

    Args:
        backbone: The bundled `vit_digits`, a model name of timm, `hf-hub:owner/name`, a local folder with timm's
            `config.json` and `model.safetensors`, or a module that returns logits.
        num_classes: Number of classes, the outputs of the new head.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        pretrained: Load pretrained weights; false starts the backbone from random ones.
        model_args: Arguments of the timm architecture that differ, such as `img_size`.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1].
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> module = ImageClassifier("vit_digits", num_classes=3, adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        pretrained: bool = True,
        model_args: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler)
        self.num_classes = num_classes
        self.pretrained = pretrained
        self.model_args = model_args
        self.label_smoothing = label_smoothing

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the timm model with a new head; a module that is given keeps its weights but for the head."""
        if isinstance(source, str):
            return create_timm_backbone(source, self.num_classes, self.pretrained, self.model_args)
        reset_classifier = getattr(source, "reset_classifier", None)  # timm's, and what follows it
        if callable(reset_classifier):
            reset_classifier(self.num_classes)
        return source

    def build_metrics(self) -> MetricCollection:
        """Return accuracy, the share of samples that are right."""
        return MetricCollection({"accuracy": MulticlassAccuracy(self.num_classes, average="micro")})

    def step(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return StepOutput(loss, logits, labels)

    def predict_step(self, batch: tuple[Tensor, Tensor] | Tensor, batch_idx: int) -> Tensor:
        """Return the class probabilities (batch, num_classes); labels in the batch are not used."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=-1)
