"""Train B on one A after another."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from asym_lightning.adapters import AdapterConfig
from asym_lightning.adapters.rank.change import grow_rank
from asym_lightning.adapters.rank.groups import RankGroup, rank_groups
from asym_lightning.core.dtensor import piece
from asym_lightning.core.kinds import Count, NotNegative
from asym_lightning.core.options import CheckedArguments
from asym_lightning.core.stall import StallDetector
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.calibration import Calibration
from asym_lightning.lifecycle.callback_methods import tell_of_rank_change


class RedrawA(CheckedArguments, Callback):
    """Train B on one frozen A after another, in a chain whose whole is an update of rank `num_links` times `rank`.

    When a link is due, what B has learned stays as it is: its columns train no more. A gets `rank` new rows,
    orthonormal to all that were there, and B new columns, which start at zero, so that the function does not change.
    At any time `rank` columns train.

    The chain is one adapter all along, of a rank that grows: it merges, resumes and is saved as such, `peft` reads
    it, and its singular values stay exact. Where A is drawn from a seed, a compact file holds B and that seed.

    The rows are what the scheme's rule gives: those that the seed has at the larger rank, or, of rules that need
    data, those that a new calibration finds at this point of training.

    Room for the whole chain is made from the start; B's gradient and the optimizer's state are of that size.

    Args:
        num_links: Number of A's that are trained on, at least 2.
        every_n_steps: Optimizer steps that a link takes.
        monitor: Begin the next link when this metric stalls; it is looked at after each validation.
        mode: `min` if less of the metric is better, `max` if more is.
        patience: Number of looks in a row without an improvement that make a stall.
        min_delta: Smallest change of the metric that counts as an improvement.
        num_batches: Training batches of each calibration, where the rule needs data.

    Raises:
        ValueError: On construction, if not one of `every_n_steps` and `monitor` is given or a number is out of its
            range; on start, if the scheme does not train B alone.
        RuntimeError: On start, if there are no adapters, or no room in them.

    Example:
        >>> RedrawA(num_links=4, every_n_steps=100).adapter_config(AdapterConfig(rank=8)).max_rank
        32

    Source: Malinovsky et al. 2024 (RAC-LoRA, arXiv 2410.08305), which folds each update into the weight and draws the
        next A anew. Here the A's are orthonormal to one another, and the weight is left alone.
    """

    def __init__(
        self,
        num_links: Count,
        *,
        every_n_steps: Count | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        patience: Count = 3,
        min_delta: NotNegative = 0.0,
        num_batches: Count = 8,
    ) -> None:
        super().__init__()
        if num_links < 2:
            raise ValueError(f"`num_links` must be at least 2, got {num_links}.")
        if (every_n_steps is None) == (monitor is None):
            raise ValueError("Give one of `every_n_steps` and `monitor`, to say when the next link begins.")
        self.num_links, self.every_n_steps = num_links, every_n_steps
        self.calibration = Calibration(num_batches)
        self.num_done = 0
        self._stall = StallDetector(monitor, mode=mode, patience=patience, min_delta=min_delta) if monitor else None
        self._groups: dict[str, RankGroup] = {}
        self._kept: dict[str, Tensor] = {}

    def adapter_config(self, config: AdapterConfig) -> AdapterConfig:
        """The configuration with room for the whole chain; asked for before the module is adapted."""
        room = self.num_links * max(config.rank, *config.rank_pattern.values(), 0)
        return dataclasses.replace(config, max_rank=max(room, config.max_rank or 0))

    # Lightning's hooks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin at the first link; a checkpoint that is resumed from says otherwise after this."""
        self.num_done = 0
        if self._stall:
            self._stall.reset()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the adapters; a resumed run goes on with the link it was at."""
        self._groups = groups = rank_groups(adapted_backbone(trainer, pl_module))
        if not groups:
            raise RuntimeError("RedrawA finds no adapters; add AdapterInjection, or a module with an `adapter`.")
        scheme = next(iter(groups.values())).adapters[0].scheme
        if scheme.A.is_trained or not scheme.B.is_trained:
            raise ValueError(f"RedrawA trains B on one frozen A after another, but the scheme is {scheme}.")
        for name, group in groups.items():
            length = group.rank // (self.num_done + 1)
            if length * self.num_links > group.max_rank:
                raise RuntimeError(
                    f"RedrawA has no room for {self.num_links} links of rank {length} in `{name}`, of rank "
                    f"{group.rank} of {group.max_rank}: the module was adapted before RedrawA was there, or has been "
                    "through a chain."
                )
        self._keep()

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take the gradients of earlier links away, which would count where gradients are clipped."""
        for name, group in self._groups.items():
            for adapter in group.adapters:
                if adapter.factor_B.grad is not None:
                    piece(adapter.factor_B.grad, 0).local[:, : self._num_kept(name)].zero_()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Undo what weight decay and momentum did to earlier links; begin the next one by steps."""
        self._put_back()
        if self.every_n_steps and trainer.global_step >= (self.num_done + 1) * self.every_n_steps:
            self._begin_next(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the next link by the metric."""
        if self._stall is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        # One process decides: the metric may differ between processes.
        if trainer.strategy.broadcast(self._stall.has_stalled(trainer.callback_metrics)):
            self._stall.reset()
            self._begin_next(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        """The link; what it has learned is in the module's state."""
        return {"num_done": self.num_done, "stall": self._stall.state_dict() if self._stall else None}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.num_done = state_dict["num_done"]
        if self._stall and state_dict["stall"]:
            self._stall.load_state_dict(state_dict["stall"])

    # Parts

    def _begin_next(self, trainer: Trainer, module: LightningModule) -> None:
        if self.num_done + 1 == self.num_links:
            return
        lengths = {name: group.rank // (self.num_done + 1) for name, group in self._groups.items()}
        directions: dict[str, Tensor] = {}
        if next(iter(self._groups.values())).adapters[0].scheme.A.rule.needs_data:
            directions = self.calibration.drawn(trainer, module, adapted_backbone(trainer, module), lengths)
        for name, group in self._groups.items():
            grow_rank(
                group, group.rank + lengths[name], trainer.optimizers, step=trainer.global_step,
                directions=directions.get(name),
            )  # fmt: skip
        self.num_done += 1
        self._keep()
        tell_of_rank_change(trainer, module)
        rank_zero_info(f"Link {self.num_done + 1} of {self.num_links} begins at step {trainer.global_step}.")

    def _num_kept(self, name: str) -> int:
        """How many columns of B belong to earlier links."""
        rank = self._groups[name].rank
        return rank - rank // (self.num_done + 1)

    def _keep(self) -> None:
        """Take the columns of earlier links as they are now for what they have to remain."""
        self._kept = {
            adapter.key: piece(adapter.factor_B, 0).local[:, : self._num_kept(name)].clone()
            for name, group in self._groups.items()
            for adapter in group.adapters
        }

    @torch.no_grad()
    def _put_back(self) -> None:
        if self.num_done:
            for group in self._groups.values():
                for adapter in group.adapters:
                    kept = self._kept[adapter.key]
                    piece(adapter.factor_B, 0).local[:, : kept.shape[1]] = kept
