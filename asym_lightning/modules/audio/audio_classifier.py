"""Classification of audio with any Hugging Face encoder of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForAudioClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames, NotNegative
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.audio.example_clips import example_clips
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_loss import ClassLoss
from asym_lightning.modules.heads.class_rows import class_rows, with_identifiers
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.metrics.class_metrics import Accuracy, MacroF1
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class AudioClassifier(HeadedModule):
    """Classify clips of audio with wav2vec2, HuBERT, WavLM, AST, Whisper's encoder or another: a new head that trains.

    Batches are dictionaries with `input_values` (batch, samples) or `input_features` (batch, ...), as the model's
    feature extractor makes them, `attention_mask` (batch, samples) if the model takes one, and `labels` (batch,), the
    numbers of the classes.

    Logs `loss`, `accuracy` and `macro_f1`. `predict` writes `predictions.csv` to the run's directory, with the file,
    the predicted class and the probability of each class of every clip.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with an audio-classification head.
        label_names: Names of the classes by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        class_weights: Weight of each class in the training loss; null weighs all clips alike.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1]; in training alone.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If an argument is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> from transformers import ASTConfig, ASTForAudioClassification
        >>> config = ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        ...     max_length=32, num_mel_bins=16, num_labels=3)
        >>> module = AudioClassifier(ASTForAudioClassification(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.logits({"input_values": torch.zeros(2, 32, 16)}).shape
        torch.Size([2, 3])
    """

    auto_class = AutoModelForAudioClassification

    def __init__(
        self,
        backbone: Backbone,
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        class_weights: Sequence[NotNegative] | None = None,
        label_smoothing: Fraction = 0.0,
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
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.class_loss = ClassLoss(class_weights, label_smoothing)

    def build_metrics(self) -> MetricCollection:
        """Return the share of clips that are right, and the mean of the classes' F1."""
        self.class_loss.check_classes(self.num_outputs)
        return MetricCollection({"accuracy": Accuracy(self.num_outputs), "macro_f1": MacroF1(self.num_outputs)})

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the cross-entropy of a batch."""
        logits, labels = self.logits(batch), batch["labels"]
        loss = self.class_loss(logits, labels, is_training=self.training)
        return StepOutput(loss, logits.argmax(dim=-1), labels, logits)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return clips of the first class."""
        clips = example_clips(self.backbone, shape)
        return {**clips, "labels": torch.zeros(shape.known("size"), dtype=torch.int64)}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the class probabilities (batch, classes); labels are not used."""
        return self.logits(batch).float().softmax(dim=-1)

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the predicted class, each class's probability and, where it is known, the label as `target`."""
        names = self.label_names or [str(number) for number in range(self.num_outputs)]
        return with_identifiers(class_rows(prediction, names, batch.get("labels")), identifiers)
