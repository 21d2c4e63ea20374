"""Mean average precision of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from asym_lightning.core.extras import check_installed
from asym_lightning.modules.images.detections import Boxes, corners


class DetectionPrecision(MeanAveragePrecision):
    """Mean over classes, and over overlaps from 0.5 to 0.95, of average precision, as COCO has it.

    Without a box to find it is 0, with a warning, where COCO's is -1.

    Args:
        overlap: The one overlap (IoU) from which a box is found; None takes the mean over COCO's ten.

    Raises:
        ModuleNotFoundError: If pycocotools is missing.
    """

    def __init__(self, overlap: float | None = None) -> None:
        check_installed("pycocotools", needed_by="ObjectDetector")
        with torch.device("cpu"):  # it reads numbers of tensors, which have none where a model is built on `meta`
            super().__init__("xyxy", iou_thresholds=None if overlap is None else [overlap])
        self.warn_on_many_detections = False  # of which COCO counts the first hundred

    def update(self, preds: Sequence[Boxes], target: Sequence[Boxes]) -> None:  # type: ignore[override]
        """Keep boxes that were found, and those that there are: by centre, width and height, as models learn them."""
        truth = [{"boxes": corners(boxes["boxes"].float()), "labels": boxes["labels"]} for boxes in target]
        super().update([dict(boxes) for boxes in preds], truth)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean, in [0, 1]."""
        values: Mapping[str, Any] = super().compute()
        value: Tensor = values["map"]
        if value >= 0:
            return value
        rank_zero_warn("the mean average precision is undefined, for there is no box to find: reported as 0.")
        return torch.zeros_like(value)
