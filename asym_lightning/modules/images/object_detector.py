"""Objects in images, with any model of Hugging Face of the family of DETR."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from PIL import Image
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from transformers import AutoModelForObjectDetection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.extras import check_installed
from asym_lightning.core.kinds import Fraction, LabelNames
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_rows import with_identifiers
from asym_lightning.modules.heads.classifier_module import ClassifierModule
from asym_lightning.modules.heads.headed_backbone import class_order, create_headed_backbone
from asym_lightning.modules.images.detections import Boxes, found, to_learn
from asym_lightning.modules.images.timm_module import images_of
from asym_lightning.modules.metrics.detection_metrics import DetectionPrecision
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

Batch = tuple[Tensor, Sequence[Boxes]]


class ObjectDetector(ClassifierModule):
    """Find objects in images: a box and a class each.

    Batches are pairs `(images, targets)`: images (batch, channels, height, width), and for each image a mapping with
    `boxes` (n, 4), by centre, width and height as shares of the image, and `labels` (n,), their class numbers.

    Logs `loss`, the model's own, and of evaluations `map`, the mean average precision over classes and overlaps, and
    `map_50`, that of overlaps of a half, which pycocotools counts. `predict` writes `detections.jsonl` to the run's
    directory: what is found in each image, with scores, and boxes by left, top, width and height in pixels.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            of the family, such as DETR, RT-DETR or YOLOS.
        label_names: Names of the classes by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        threshold: Score from which `predict` writes a box.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If the threshold is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> from transformers import YolosConfig
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": [32, 32]}
        >>> config = YolosConfig(**sizes, num_labels=1)
        >>> module = ObjectDetector(AutoModelForObjectDetection.from_config(config), ["cat"], AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> [sorted(boxes) for boxes in module.predict_step(torch.zeros(1, 3, 32, 32), 0)]
        [['boxes', 'labels', 'scores']]
    """

    predictions_file = "detections.jsonl"

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
        """Build the model with a head for the classes; a module that is given is used as it is."""
        names = self.required_label_names()
        self.num_outputs = len(names)
        model: nn.Module
        if isinstance(source, str):
            model, self._new_modules = create_headed_backbone(
                source, self.num_outputs, names, self.build_options, AutoModelForObjectDetection
            )
        else:
            model = source
        self._order = class_order(model, names)
        return model

    def build_metrics(self) -> MetricCollection:
        """Return the mean average precisions.

        Raises:
            ModuleNotFoundError: If pycocotools is missing, or scipy, by which the models' losses match boxes.
        """
        check_installed("scipy", needed_by="ObjectDetector")
        precisions: dict[str, Metric | MetricCollection] = {
            "map": DetectionPrecision(),
            "map_50": DetectionPrecision(0.5),
        }
        return MetricCollection(precisions, compute_groups=False)  # whose states are lists of boxes

    def step(self, batch: Batch) -> StepOutput:
        """Return the model's own loss, and what it finds."""
        images, targets = batch
        output = self(images, labels=to_learn(targets, self._order))
        boxes = found(output, self.num_outputs, self._order)
        return StepOutput(output.loss, boxes, targets)  # type: ignore[arg-type]  # metrics of boxes take lists of them

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss, logged as `train/loss`; boxes are counted in evaluation alone, for that takes long."""
        images, targets = batch
        loss: Tensor = self(images, labels=to_learn(targets, self._order)).loss
        self.log("train/loss", loss, batch_size=len(images))
        return loss

    def example_batch(self, shape: BatchShape) -> Batch:
        """Refuse, for the loss matches what is found with what there is, by numbers that an example has none of.

        Raises:
            ValueError: Always.
        """
        raise ValueError("the loss of objects matches boxes by their numbers, and an estimate has none.")

    def predict_step(self, batch: Batch | Tensor, batch_idx: int, dataloader_idx: int = 0) -> list[Boxes]:
        """Return what is found in each image, by corners, as shares of the image; targets in the batch are not used."""
        return found(self(images_of(batch)), self.num_outputs, self._order)  # type: ignore[arg-type]

    def prediction_rows(
        self, prediction: Sequence[Boxes], batch: Batch | Tensor, identifiers: Sequence[str]
    ) -> Sequence[Row]:
        """Return what is found in each image, in pixels of its file."""
        names, rows = self.label_names or [], []
        for boxes, file in zip(prediction, identifiers, strict=True):
            with Image.open(file) as image:
                width, height = image.size
            kept = boxes["scores"] >= self.threshold
            left, top, right, bottom = (boxes["boxes"][kept] * torch.tensor([width, height] * 2).to(boxes["boxes"])).T
            places = torch.stack([left, top, right - left, bottom - top], dim=1).tolist()
            of_boxes = zip(boxes["labels"][kept].tolist(), boxes["scores"][kept].tolist(), places, strict=True)
            objects = [{"label": names[label], "score": score, "box": box} for label, score, box in of_boxes]
            rows.append({"objects": objects})
        return with_identifiers(rows, identifiers)
