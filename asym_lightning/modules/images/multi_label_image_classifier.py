"""Images of which each may be of several classes, or of none, with any timm backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames, NotNegative
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.multi_label_loss import MultiLabelLoss
from asym_lightning.modules.heads.multi_label_module import MultiLabelModule
from asym_lightning.modules.images.timm_module import TimmModule, targets_of
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class MultiLabelImageClassifier(TimmModule, MultiLabelModule):
    """Say of each class whether an image is of it.

    Batches are pairs `(images, targets)`: images (batch, channels, height, width), targets (batch, classes), which are
    1 for each class that an image is of, and 0.

    Logs `loss`, the mean of the classes' binary cross-entropies, `macro_f1`, the mean of the classes' F1, `micro_f1`,
    that of all decisions, `exact_match`, the share of images with the right classes and no others, and `map`, the mean
    of the classes' average precisions. `predict` writes `predictions.jsonl` to the run's directory: the classes of each
    image, and the probability of each class.

    Args:
        backbone: The bundled `vit_digits`, a model name of timm, `hf-hub:owner/name`, a local folder with timm's
            `config.json` and `model.safetensors`, or a module that returns logits.
        label_names: Names of the classes by number, for predictions and files. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        threshold: Probability from which an image is of a class.
        positive_weights: How many times an image that is of a class counts in the training loss, for each class; null
            counts it once.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If the threshold is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> module = MultiLabelImageClassifier("vit_digits", ["round", "open", "straight"], AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.step((torch.zeros(1, 1, 8, 8), torch.tensor([[1, 0, 1]]))).predictions.shape
        torch.Size([1, 3])
    """

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

    def count_outputs(self) -> int:
        """Return the number of classes."""
        return len(self.required_label_names())

    def class_targets(self, batch: Any, num_classes: int) -> Tensor | None:
        """Return the targets of the batch."""
        return targets_of(batch)

    def example_batch(self, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Return images that are of no class."""
        images = shape.images(self.data_config)
        return images, torch.zeros(len(images), self.num_outputs, dtype=torch.int64)
