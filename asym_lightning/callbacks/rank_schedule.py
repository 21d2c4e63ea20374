"""Change the rank while training."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from asym_lightning.adapters import AdapterConfig
from asym_lightning.adapters.rank.change import set_rank
from asym_lightning.adapters.rank.groups import RankGroup, rank_groups
from asym_lightning.adapters.rank.policies import Moment, RankPolicy
from asym_lightning.core.loggers import LoggerFanout
from asym_lightning.core.options import CheckedArguments
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.callback_methods import tell_of_rank_change


class RankScheduler(CheckedArguments, Callback):
    """Grow and shrink adapters by a policy.

    Shrinking rotates to the singular basis and truncates, which is the best approximation; growing adds orthonormal
    rows to A and zero columns to B, which leaves the function as it is. The scaling stays, the optimizer's moments
    follow, and parameters remain the same objects, so DDP and compiled models go on as they were.

    The rank that a policy may grow to has to be allocated from the start. Together with AdapterInjection, or in an
    AdapterModule, that is done for you, whatever the order of callbacks; elsewhere set `max_rank` of the adapter.

    Every change is logged as `rank/<adapter>` and `rank/total`. A checkpoint has the ranks in it, an adapter file has
    the active rank only.

    Args:
        policy: Which rank when: Milestones, Energy, Budget, GrowOnStall, or your own RankPolicy.

    Raises:
        RuntimeError: If there is a second RankScheduler (Lightning says so), or on start nothing to schedule.
        ValueError: On start, if the policy may ask for more than is allocated, or a layer can't have that rank.

    Example:
        >>> from asym_lightning.callbacks import Milestones
        >>> RankScheduler(Milestones({0: 2, 100: 8})).policy.max_rank
        8
    """

    changes_factors = True

    def __init__(self, policy: RankPolicy) -> None:
        super().__init__()
        if not isinstance(policy, RankPolicy):
            raise TypeError(f"`policy` must be a RankPolicy, such as Milestones({{100: 8}}), got {policy!r}.")
        self.policy = policy
        self._fresh_policy = copy.deepcopy(policy.state_dict())
        self._last_step = -1
        self._groups: dict[str, RankGroup] = {}
        self._loggers = LoggerFanout()

    def adapter_config(self, config: AdapterConfig) -> AdapterConfig:
        """The configuration with room for what the policy may ask for; asked before layers are adapted."""
        ranks = (config.rank, *config.rank_pattern.values())
        largest = self.policy.max_rank or 0
        if largest <= max(config.max_rank or 0, min(ranks)):
            return config
        return dataclasses.replace(config, max_rank=max(largest, *ranks))

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, of another fold say; a checkpoint is loaded after this."""
        if stage == "fit" and trainer.global_step == 0:
            self.policy.load_state_dict(copy.deepcopy(self._fresh_policy))
            self._last_step = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a schedule for which there is no room."""
        self._groups = groups = rank_groups(adapted_backbone(trainer, pl_module))
        if not groups:
            raise RuntimeError("RankScheduler finds no adapters; add AdapterInjection, or a module with an `adapter`.")
        largest = self.policy.max_rank
        short = {name: group for name, group in groups.items() if largest is not None and group.max_rank < largest}
        if short:
            name, group = next(iter(short.items()))
            limit = min(group.adapters[0].d_in, *(adapter.d_out for adapter in group.adapters))
            raise ValueError(
                f"The rank schedule asks for rank {largest}, but `{name}` has room for {group.max_rank} and its layer "
                f"allows at most {limit}; set `max_rank` of the adapter, or a smaller rank in the schedule."
            )
        self._loggers = LoggerFanout()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the rank to start with."""
        self._ask("start", trainer.current_epoch, trainer, pl_module)
        self._log(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Ask after each step of the optimizer, once however many batches it accumulates."""
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self._ask("step", trainer.current_epoch, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask after each epoch."""
        self._ask("epoch", trainer.current_epoch + 1, trainer, pl_module)
        if not trainer.enable_validation:
            self._ask("validation", trainer.current_epoch + 1, trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask after each validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._ask("validation", trainer.current_epoch, trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The policy's state; the ranks themselves are in the module's."""
        return {"policy": self.policy.state_dict(), "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.policy.load_state_dict(state_dict["policy"])
        self._last_step = state_dict["last_step"]

    # Parts

    def _ask(
        self,
        event: Literal["start", "step", "epoch", "validation"],
        epoch: int,
        trainer: Trainer,
        pl_module: LightningModule,
    ) -> None:
        groups = self._groups
        moment = Moment(event, trainer.global_step, epoch, trainer.callback_metrics if event == "validation" else {})
        if not self.policy.is_due(moment, groups):
            return
        # One process decides: a metric or a singular value may differ in the last bit between processes.
        wanted = trainer.strategy.broadcast(dict(self.policy.wanted_ranks(moment, groups)))
        changes = {name: rank for name, rank in wanted.items() if rank != groups[name].rank}
        for name, rank in changes.items():
            set_rank(groups[name], rank, trainer.optimizers, step=trainer.global_step)
        if changes:
            tell_of_rank_change(trainer, pl_module)
            self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        ranks = {f"rank/{name}": float(group.rank) for name, group in self._groups.items()}
        self._loggers.log(trainer, {"rank/total": sum(ranks.values()), **ranks})
