"""Digits turned by an angle."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningDataModule
from torch import nn

from asym_lightning.data import DigitsDataModule
from asym_lightning.modules import AdapterModule, ImageClassifier
from asym_lightning.modules.images.timm_backbone import create_timm_backbone
from benchmarks.frozen_a.tasks.task import Task


class Digits(Task):
    """Digits turned by an angle, as in the quickstart."""

    rates = (5e-3, 1e-2, 2e-2, 4e-2)
    max_epochs, num_steps = 20, 200
    share_a = True
    peft_targets, equal_rank = ("attn.qkv",), 6

    def __init__(self, angle: int) -> None:
        self.name = f"digits, {angle} degrees"
        self.angle = angle

    def data(self, seed: int) -> LightningDataModule:
        return DigitsDataModule(angles=[self.angle], num_train=500)

    def backbone(self) -> nn.Module:
        return create_timm_backbone("vit_digits", 10)

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return ImageClassifier(backbone, 10, **options)
