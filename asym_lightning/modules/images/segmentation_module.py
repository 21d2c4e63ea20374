"""The class of each pixel, with any timm backbone and a decoder, or a segmenter of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm.data
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count, LabelNames, NotNegative
from asym_lightning.core.tokens import IGNORED
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_loss import ClassLoss
from asym_lightning.modules.heads.headed_backbone import class_order
from asym_lightning.modules.images.mask_module import MaskModule
from asym_lightning.modules.images.segmenter import create_segmenter, segment
from asym_lightning.modules.images.timm_module import images_of
from asym_lightning.modules.images.timm_segmenter import TimmSegmenter
from asym_lightning.modules.metrics.class_metrics import Accuracy
from asym_lightning.modules.metrics.iou import MeanIoU
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class SegmentationModule(MaskModule):
    """Tell the class of each pixel of an image.

    Batches are pairs `(images, masks)`: images (batch, channels, height, width), masks (batch, height, width), which
    hold class numbers, and -100 where a pixel does not count.

    Logs `loss`, the cross-entropy of the pixels or the own loss of a model that proposes masks, `mean_iou`, the mean
    over the classes that are there or predicted, `accuracy`, the share of pixels, and after each evaluation the IoU of
    each class, `iou/<class>`. Loggers that show pictures get some of each validation, with their masks and what is
    predicted. `predict` writes a png of each image's classes to `masks` in the run's directory, in the size of the
    image's file, and `predictions.csv`, which says where.

    Args:
        backbone: A backbone of timm by name, `hf-hub:owner/name` or folder, which gets a decoder that trains in full; a
            model of Hugging Face for semantic or universal segmentation by name, `owner/name`, or folder; or a module
            that returns logits of pixels.
        label_names: Names of the classes by number. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        decoder_width: Channels of the decoder of a backbone of timm.
        class_weights: Weight of each class in the training loss; null weighs all pixels alike, and is what a model
            needs that proposes masks.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If an argument is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> module = SegmentationModule("vit_digits", ["paper", "ink"], AdapterConfig(rank=2), decoder_width=8)
        >>> module.configure_model()
        >>> module.step((torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8).long())).predictions.shape
        torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        backbone: Backbone,
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        decoder_width: Count = 128,
        class_weights: Sequence[NotNegative] | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.decoder_width = decoder_width
        self.class_loss = ClassLoss(class_weights)

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model with a head for the classes; a module that is given is used as it is."""
        names = self.required_label_names()
        self.num_outputs = len(names)
        self.class_loss.check_classes(self.num_outputs)
        if isinstance(source, str):
            model, self._new_modules = create_segmenter(source, names, self.decoder_width, self.build_options)
        else:
            model, self._new_modules = source, ["decoder"] if isinstance(source, TimmSegmenter) else []
        self._order = class_order(model, names)
        return model

    @property
    def data_config(self) -> dict[str, Any] | None:
        """Size, mean, standard deviation and interpolation of the images, by timm; None of other models."""
        encoder = getattr(self.backbone, "encoder", None)
        return timm.data.resolve_model_data_config(encoder) if hasattr(encoder, "pretrained_cfg") else None

    def build_metrics(self) -> MetricCollection:
        """Return mean IoU, and accuracy, the share of pixels that are right."""
        return MetricCollection({"mean_iou": MeanIoU(self.num_outputs), "accuracy": Accuracy(self.num_outputs)})

    def step(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the loss, and the class of each pixel."""
        images, masks = batch
        scores, loss = segment(self.backbone, images, masks, self._order)
        if loss is None:
            is_any = (masks != IGNORED).any()  # without a pixel that counts the mean of their losses would be no number
            loss = self.class_loss(scores, masks.where(is_any, 0), is_training=self.training) * is_any
        return StepOutput(loss, scores.argmax(dim=1), masks)

    def example_batch(self, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Return images, and masks of the first class."""
        images = shape.images(self.data_config)
        return images, torch.zeros(len(images), *images.shape[2:], dtype=torch.int64)

    def predict_step(self, batch: tuple[Tensor, ...] | Tensor, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the class of each pixel (batch, height, width); masks in the batch are not used."""
        return segment(self.backbone, images_of(batch), order=self._order).scores.argmax(dim=1)
