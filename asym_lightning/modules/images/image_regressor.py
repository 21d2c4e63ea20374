"""A number for each image, with any timm backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_rows import value_rows, with_identifiers
from asym_lightning.modules.images.timm_module import TimmModule, targets_of
from asym_lightning.modules.metrics.regression_metrics import regression_metrics
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class ImageRegressor(TimmModule):
    """Tell a number of each image, such as an age, a count or a quality.

    Batches are pairs `(images, values)`: images (batch, channels, height, width), values (batch,), which are learnt as
    they are: numbers in the hundreds are better scaled first.

    Logs `loss`, the mean squared error, `mae`, the mean absolute error, `r2`, the share of the variance that is
    explained, and `pearson`, the correlation. `predict` writes a table with the value of each image.

    Args:
        backbone: The bundled `vit_digits`, a model name of timm, `hf-hub:owner/name`, a local folder with timm's
            `config.json` and `model.safetensors`, or a module that returns one number an image.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well.

    Example:
        >>> module = ImageRegressor("vit_digits", AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.step((torch.zeros(2, 1, 8, 8), torch.tensor([0.5, 1.0]))).predictions.shape
        torch.Size([2])
    """

    is_regression = True

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)

    def count_outputs(self) -> int:
        """Return 1."""
        return 1

    def build_metrics(self) -> MetricCollection:
        """Return mean absolute error, R2 and correlation."""
        return regression_metrics("mae", "r2", "pearson")

    def step(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the mean squared error of a batch."""
        values = self.predict_step(batch, 0)
        targets = batch[1].to(values)
        return StepOutput(F.mse_loss(values, targets), values, targets)

    def example_batch(self, shape: BatchShape) -> tuple[Tensor, Tensor]:
        """Return images and values."""
        images = shape.images(self.data_config)
        return images, torch.zeros(len(images))

    def predict_step(self, batch: tuple[Tensor, ...] | Tensor, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the values (batch,)."""
        return self.logits(batch).float().squeeze(-1)

    def prediction_rows(
        self, prediction: Tensor, batch: tuple[Tensor, ...] | Tensor, identifiers: Sequence[str]
    ) -> Sequence[Row]:
        """Return the value of each image as `label`, and as `target` what it should be, where that is known."""
        return with_identifiers(value_rows(prediction, targets_of(batch)), identifiers)
