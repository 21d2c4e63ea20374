"""What every task of the comparison has: data, a backbone, a recipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.cache import user_cache_dir
from asym_lightning.modules import AdapterModule, WarmupSchedule
from benchmarks.frozen_a.arms import Arm

# Of what tasks make and what modules write as they are scored.
FOLDER = user_cache_dir() / "benchmarks"


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
        has_convolutions: They are convolutions, which some of its methods do not adapt.
        has_head: There is a new head, which trains in every arm and is an arm alone.
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
    has_convolutions: ClassVar[bool] = False
    has_head: ClassVar[bool] = True
    equal_rank: int = 4
    share_a: bool = False
    warmup: float = 0.1
    decay: str = "cosine"

    def trainer(self, callbacks: Sequence[Callback]) -> Trainer:
        """A quiet Trainer of the recipe; it keeps nothing."""
        return Trainer(
            accelerator="cpu",
            max_epochs=self.max_epochs,
            limit_val_batches=0,
            default_root_dir=FOLDER,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

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

    def has(self, arm: Arm) -> bool:
        """Whether the arm can be run here."""
        if arm.peft is not None:
            is_able = arm.peft.adapts_convolutions or not self.has_convolutions
            return self.peft_targets is not None and is_able
        return self.has_head or arm.scheme is not None or arm.trains_all

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
