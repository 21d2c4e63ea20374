"""Image classification with any timm backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count, Fraction, LabelNames, Names, NotNegative, as_names
from asym_lightning.core.messages import listed
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_loss import ClassLoss
from asym_lightning.modules.heads.class_rows import class_rows, with_identifiers
from asym_lightning.modules.images.mixup import mixed
from asym_lightning.modules.images.timm_module import TimmModule, targets_of
from asym_lightning.modules.metrics.class_metrics import Accuracy
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class ImageClassifier(TimmModule):
    """Classify images with a timm backbone: cross-entropy, accuracy, a new head that is trained.

    Batches are pairs `(images, labels)`: images (batch, channels, height, width), labels (batch,).

    Args:
        backbone: The bundled `vit_digits`, a model name of timm, `hf-hub:owner/name`, a local folder with timm's
            `config.json` and `model.safetensors`, or a module that returns logits.
        num_classes: Number of classes, the outputs of the new head. None takes that of `label_names`, or of the data.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        class_weights: Weight of each class in the training loss; null weighs all images alike.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1]; in training alone.
        mixup: Train on mixtures of two images, whose share is drawn from Beta(mixup, mixup); 0 mixes none. The training
            accuracy then counts the label of the larger share.
        frozen_layers: Dotted suffixes or globs of layers that stay as they are in full fine-tuning, such as
            `patch_embed` and `blocks.0`; [] freezes none.
        label_names: Names of the classes by number, for predictions and files. None asks the data module.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, an argument is out of range, or there are not
            `num_classes` names.

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
        num_classes: Count | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        class_weights: Sequence[NotNegative] | None = None,
        label_smoothing: Fraction = 0.0,
        mixup: NotNegative = 0.0,
        frozen_layers: Names = (),
        label_names: LabelNames | None = None,
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
        if frozen_layers and not train_backbone:
            raise ValueError("`frozen_layers` are for full fine-tuning: without `train_backbone: true` all are frozen.")
        self._num_classes = num_classes
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.class_loss = ClassLoss(class_weights, label_smoothing)
        self._check_classes()
        self.mixup = mixup
        self.frozen_layers = as_names(frozen_layers)

    @property
    def num_classes(self) -> int:
        """Number of classes.

        Raises:
            ValueError: If it is not known yet.
        """
        if self._num_classes is None and self.label_names is None:
            raise ValueError("`num_classes` is not given, and there is no data module with `label_names` to count.")
        return self._num_classes or len(self.label_names or ())

    def setup(self, stage: str) -> None:
        """Learn the classes from the data module, or check that there are as many.

        Raises:
            ValueError: If there are not.
        """
        super().setup(stage)
        self._check_classes()

    def _check_classes(self) -> None:
        names = self.label_names
        if None not in (names, self._num_classes) and len(names or ()) != self._num_classes:
            raise ValueError(
                f"`num_classes` is {self._num_classes}, but there are {len(names or ())} classes, "
                f"{listed(names or (), 5)}: leave it out, and they are counted."
            )
        if names is not None or self._num_classes is not None:
            self.class_loss.check_classes(self.num_classes)

    def count_outputs(self) -> int:
        """Return the number of classes."""
        return self.num_classes

    def build_metrics(self) -> MetricCollection:
        """Return accuracy, the share of samples that are right."""
        return MetricCollection({"accuracy": Accuracy(self.num_classes)})

    def step(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        if not (self.training and self.mixup):
            logits = self(images)
            return StepOutput(self._loss(logits, labels), logits, labels, logits)
        images, partner, share = mixed(images, self.mixup)
        logits = self(images)
        loss = share * self._loss(logits, labels) + (1 - share) * self._loss(logits, labels[partner])
        return StepOutput(loss, logits, labels, logits)

    def example_batch(self, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        images = shape.images(self.data_config)
        return images, torch.zeros(len(images), dtype=torch.int64)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.class_loss(logits, labels, is_training=self.training)

    def predict_step(self, batch: tuple[Tensor, Tensor] | Tensor, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the class probabilities (batch, num_classes); labels in the batch are not used."""
        return self.logits(batch).softmax(dim=-1)

    def prediction_rows(self, prediction: Tensor, batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the predicted class, by its name, and each class's probability; and the label where it is known."""
        names = self.label_names or [str(number) for number in range(self.num_classes)]
        labels = targets_of(batch)
        are_labels = labels is not None and labels.ndim == 1
        return with_identifiers(class_rows(prediction, names, labels if are_labels else None), identifiers)
