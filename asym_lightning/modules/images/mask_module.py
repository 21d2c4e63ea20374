"""What tasks of pixels log beside their scores, and what they leave of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.types import STEP_OUTPUT
from PIL import Image
from torch import Tensor

from asym_lightning.core.loggers import LoggerFanout
from asym_lightning.lifecycle.predictions import PREDICTIONS, Row
from asym_lightning.modules.heads.classifier_module import ClassifierModule
from asym_lightning.modules.images.mask_pictures import overview, save_mask
from asym_lightning.modules.metrics.iou import MeanIoU

NUM_PICTURES = 4


class MaskModule(ClassifierModule):
    """A `ClassifierModule` whose `step` and `predict_step` give the classes of pixels (batch, height, width).

    Its metrics have `mean_iou`, a `MeanIoU`.
    """

    predictions_file = PREDICTIONS
    _mask_folder: Path

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loggers = LoggerFanout()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> STEP_OUTPUT:
        """Log `val/loss` and the metrics, and show the first images with their masks and what is predicted."""
        output: Any = super().validation_step(batch, batch_idx, dataloader_idx)
        if batch_idx == 0 and not self.trainer.sanity_checking and self.trainer.loggers:
            shown = [part[:NUM_PICTURES] for part in (batch[0], output["targets"], output["predictions"])]
            self._loggers.log(self.trainer, {}, pictures={f"val/masks{dataloader_idx or ''}": overview(*shown)})
        return output

    def on_validation_epoch_end(self) -> None:
        """Log the IoU of each class beside what the base class logs."""
        self._log_classes("val")
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Log the IoU of each class beside what the base class logs."""
        self._log_classes("test")
        super().on_test_epoch_end()

    def _log_classes(self, stage: str) -> None:
        named = {name: metrics for name, (metrics, _) in self._sets.items()} or {"": getattr(self, f"{stage}_metrics")}
        for name, metrics in named.items():
            prefix = f"{stage}/{name}/iou" if name else f"{stage}/iou"
            mean_iou = metrics["mean_iou"]
            assert isinstance(mean_iou, MeanIoU)
            found = mean_iou.of_classes(self.label_names or ())
            self.log_dict({f"{prefix}/{label}": value for label, value in found.items()}, sync_dist=True)

    def on_predict_start(self) -> None:
        """Find the folder of the masks, which all processes have to ask for."""
        self._mask_folder = self.run_directory / "masks"

    def prediction_rows(self, prediction: Tensor, batch: Any, identifiers: Sequence[str]) -> Sequence[Row]:
        """Write the masks, and return where each is."""
        rows = []
        for mask, identifier in zip(prediction, identifiers, strict=True):
            path = self._mask_folder / f"{Path(identifier).stem}.png"
            save_mask(mask, path, _size_of(identifier) or (mask.shape[1], mask.shape[0]))
            rows.append({"id": identifier, "mask": f"{path.parent.name}/{path.name}"})
        return rows


def _size_of(file: str) -> tuple[int, int] | None:
    if not Path(file).is_file():
        return None
    with Image.open(file) as image:
        return image.size
