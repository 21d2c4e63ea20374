"""Train both factors, then one."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from asym_lightning.adapters import LowRankAdapter, adapters_by_name
from asym_lightning.adapters.rank.change import orthonormalize
from asym_lightning.adapters.rank.groups import rank_groups
from asym_lightning.adapters.rank.optimizer_state import drop_state
from asym_lightning.core.dtensor import whole
from asym_lightning.core.kinds import Count, Fraction, NotNegative, NumberOrZero
from asym_lightning.core.messages import listed
from asym_lightning.core.options import CheckedArguments
from asym_lightning.core.stall import StallDetector
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.callback_methods import tell_of_factor_freeze
from asym_lightning.lifecycle.ddp import exchange_only_what_trains


class FreezeA(CheckedArguments, Callback):
    """Freeze A, from the start or later, and prove at the end that it did not move.

    With none of `after_steps`, `after_epochs`, `after_fraction` and `monitor` it freezes at the start. For a later
    freeze the scheme has to train both factors until then, as `hB_zero_hA_rand` does. At the freeze the optimizer
    forgets its state of A and keeps that of B. From then on A costs what a frozen A costs: no gradient, and no input
    kept for it.

    On tasks where a random A of low rank misses the few input directions that matter, an A that was trained for a tenth
    of the steps is the natural remedy.

    With DDP, gradients of the frozen factor are exchanged no longer either: it is made anew at the freeze.

    Args:
        factor: `A`, or `B` to freeze B and go on with A.
        after_steps: Freeze when this many optimizer steps are done.
        after_epochs: Freeze when this many epochs are done.
        after_fraction: Freeze when this share of all steps of the run is done, in (0, 1).
        monitor: Freeze when this metric stalls; it is looked at after each validation, or each epoch if there is none.
        mode: `min` if less of the metric is better, `max` if more is.
        patience: Number of looks in a row without an improvement that make a stall.
        min_delta: Smallest change of the metric that counts as an improvement.
        orthonormalize: Make the frozen factor orthonormal at the freeze and put the rest into the other one; the
            function does not change, and the optimizer's moments follow.

    Raises:
        ValueError: On construction, if more than one time is given or one is out of its range; on start, if the other
            factor is frozen, so that nothing would train, or `after_fraction` is of a run without an end.
        RuntimeError: If `monitor` was never logged, or the frozen factor changed while it was frozen.

    Example:
        >>> freeze = FreezeA(after_fraction=0.1, orthonormalize=True)
        >>> freeze.frozen_at is None
        True
    """

    def __init__(
        self,
        factor: Literal["A", "B"] = "A",
        *,
        after_steps: NumberOrZero | None = None,
        after_epochs: NumberOrZero | None = None,
        after_fraction: Fraction | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        patience: Count = 3,
        min_delta: NotNegative = 0.0,
        orthonormalize: bool = False,
    ) -> None:
        super().__init__()
        times = {"after_steps": after_steps, "after_epochs": after_epochs, "after_fraction": after_fraction}
        given = [name for name, value in {**times, "monitor": monitor}.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(f'`{name}`' for name in given)} say twice when to freeze; give one.")
        if after_fraction is not None and not 0 < after_fraction < 1:
            raise ValueError(f"`after_fraction` must be between 0 and 1, got {after_fraction}.")
        self.factor = factor
        self.after_steps, self.after_epochs, self.after_fraction = after_steps, after_epochs, after_fraction
        self.orthonormalize = orthonormalize
        self._stall = StallDetector(monitor, mode=mode, patience=patience, min_delta=min_delta) if monitor else None
        self.frozen_at: int | None = None
        self._digests: dict[str, str] = {}

    @property
    def state_key(self) -> str:
        """One for each factor, so that two instances can be resumed."""
        return f"{type(self).__qualname__}[{self.factor}]"

    @property
    def changes_factors(self) -> bool:
        """Whether a factor that trains is going to be frozen, or both are going to be rotated."""
        is_later = any((self.after_steps, self.after_epochs, self.after_fraction, self._stall))
        return is_later or self.orthonormalize

    # When

    def is_due(self, trainer: Trainer, num_epochs: int) -> bool:
        """Whether the factor should be frozen by now, by steps or epochs; override it for another rule.

        Args:
            trainer: Knows the number of steps done and to do.
            num_epochs: Number of epochs done; `trainer.current_epoch` is one behind when an epoch ends.
        """
        if self.after_steps is not None:
            return trainer.global_step >= self.after_steps
        if self.after_epochs is not None:
            return num_epochs >= self.after_epochs
        if self.after_fraction is not None:
            return trainer.global_step >= max(1, round(self.after_fraction * trainer.estimated_stepping_batches))
        return self._stall is None

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, of another fold say; a checkpoint is loaded after this."""
        if stage == "fit" and trainer.global_step == 0:
            self.frozen_at, self._digests = None, {}
            if self._stall is not None:
                self._stall.reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that something is left to train, and that there is a time to freeze at."""
        if self.after_fraction is not None and math.isinf(trainer.estimated_stepping_batches):
            raise ValueError(
                "`after_fraction` is a share of all steps of the run, which has no known end: set `max_epochs` or "
                "`max_steps`, or give `after_steps` or `after_epochs`."
            )
        other = "factor_B" if self.factor == "A" else "factor_A"
        adapters = self._adapters(trainer, pl_module)
        if self.frozen_at is None and not any(getattr(a, other).requires_grad for a in adapters.values()):
            raise ValueError(
                f"Freezing {self.factor} would leave nothing to train: the scheme freezes the other factor already "
                f"({next(iter(adapters.values())).scheme if adapters else 'there are no adapters'})."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what is to be frozen from the start, or was when the run was interrupted."""
        if self.frozen_at is None:
            self._freeze_if(self.is_due(trainer, trainer.current_epoch), trainer, pl_module)
        else:
            self._stop_training(trainer, pl_module)
            self._prove_unchanged(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Freeze by steps."""
        self._freeze_if(self.is_due(trainer, trainer.current_epoch), trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze by epochs, and by the metric if there is no validation."""
        self._freeze_if(self.is_due(trainer, trainer.current_epoch + 1), trainer, pl_module)
        if not trainer.enable_validation:
            self._look(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze by the metric."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prove that the frozen factor is what it was.

        Raises:
            RuntimeError: It changed; the message names the layers.
        """
        self._prove_unchanged(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """When it was frozen, and digests of what was."""
        stall = self._stall.state_dict() if self._stall else None
        return {"frozen_at": self.frozen_at, "digests": self._digests, "stall": stall}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.frozen_at, self._digests = state_dict["frozen_at"], dict(state_dict["digests"])
        if self._stall and state_dict["stall"]:
            self._stall.load_state_dict(state_dict["stall"])

    # How

    def on_rank_change(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the frozen factor as it is now for what it has to remain; a RankScheduler has changed it."""
        self._record(trainer, pl_module)

    def _record(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.frozen_at is not None:
            adapters = self._adapters(trainer, pl_module)
            self._digests = {name: _digest(self._factor(adapter)) for name, adapter in adapters.items()}

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stall and self.frozen_at is None:
            # One process decides: the metric may differ between processes.
            has_stalled = trainer.strategy.broadcast(self._stall.has_stalled(trainer.callback_metrics))
            self._freeze_if(has_stalled, trainer, pl_module)

    def _freeze_if(self, is_due: bool, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_due or self.frozen_at is not None:
            return
        if self.orthonormalize:
            for group in rank_groups(adapted_backbone(trainer, pl_module)).values():
                orthonormalize(group, trainer.optimizers, factor=self.factor)
        self._stop_training(trainer, pl_module)
        self.frozen_at = trainer.global_step
        self._record(trainer, pl_module)
        rank_zero_info(
            f"Factor {self.factor} of {len(self._digests)} adapters is frozen from step {self.frozen_at} on."
        )

    def _stop_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        factors = [self._factor(adapter) for adapter in self._adapters(trainer, pl_module).values()]
        was_trained = any(factor.requires_grad for factor in factors)
        for factor in factors:
            factor.requires_grad_(False)
            factor.grad = None  # with one left over the optimizer would step once more
            drop_state(trainer.optimizers, factor)
        tell_of_factor_freeze(trainer, pl_module)
        if was_trained:
            exchange_only_what_trains(trainer, pl_module)

    def _prove_unchanged(self, trainer: Trainer, pl_module: LightningModule) -> None:
        adapters = self._adapters(trainer, pl_module)
        changed = [n for n, digest in self._digests.items() if _digest(self._factor(adapters[n])) != digest]
        if changed:
            raise RuntimeError(
                f"The frozen factor {self.factor} changed in {len(changed)} adapters after step {self.frozen_at}: "
                f"{listed(changed, 4)}."
            )

    def _adapters(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, LowRankAdapter]:
        return adapters_by_name(adapted_backbone(trainer, pl_module))

    def _factor(self, adapter: LowRankAdapter) -> nn.Parameter:
        return adapter.factor_A if self.factor == "A" else adapter.factor_B


def _digest(factor: Tensor) -> str:
    """SHA-256 of the numbers, bit for bit."""
    data = whole(factor).cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()
