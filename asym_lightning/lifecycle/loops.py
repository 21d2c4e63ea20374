"""Where Lightning's loops go on in a resumed run.

Lightning (2.6) restores how many batches and epochs are done. What was still to be done when the checkpoint was
written, it leaves out or does twice in some cases:

| saved                                                | Lightning goes on with       | an uninterrupted run          |
|------------------------------------------------------|------------------------------|-------------------------------|
| at the end of a batch before a validation            | the next batch               | the validation                |
| at the end of an epoch's last batch                  | the next epoch               | validation, end of the epoch  |
| at the end of an epoch, in a run with `max_steps`    | the end of that epoch again  | the next epoch                |
| when `max_steps` had cut an epoch, with more of them | its rest, as another epoch   | its rest                      |
| in the middle of an epoch's last step, as SLURM's signal is | the next epoch         | that step                     |
| anywhere, with a `ReduceLROnPlateau` by epochs       | and does not let it look     | a look when the epoch ends    |

All that is known here of Lightning's loops beyond its documentation is in this file, but for their private names.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loops import evaluation_loop, fit_loop
from lightning.pytorch.utilities import CombinedLoader

from asym_lightning.core.either_lightning import either
from asym_lightning.core.kinds import NumberOrZero, check_fields, check_value
from asym_lightning.core.private_names import (
    accumulates,
    count_step_for_loggers,
    data_fetcher,
    set_restart_stage,
    take_for_begun,
    validation_is_due,
)

_COUNTED = ("epoch_progress", "epoch_loop.batch_progress")


class Instant(Enum):
    """When a checkpoint was written, as far as something is left to do that Lightning forgets."""

    BATCH_END = "in a batch's `on_train_batch_end`"
    EPOCH_END = "in an epoch's `on_train_epoch_end`"
    IN_STEP = "between a batch's `on_train_batch_start` and its end"
    OTHER = "at another time"


def check_counters(checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint has the counters of the fit loop: Lightning begins at 0 without a word where it has none.

    Raises:
        ValueError: If one is missing or of another form.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop")
    try:
        check_fields("its `loops.fit_loop`", loop, dict.fromkeys(_COUNTED, Mapping[str, Any]), _COUNTED)
        for name in _COUNTED:
            counts = {part: loop[name].get(part) for part in ("total", "current")}
            check_value(name, counts, Mapping[str, Mapping[str, NumberOrZero]])
            for count in counts.values():
                check_fields(f"its `{name}`", count, {}, ("ready", "processed", "completed"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"The checkpoint is damaged: {error}") from error


def count_as_done(checkpoint: dict[str, Any]) -> Instant:
    """Let Lightning take for done the batch or the epoch in whose last hook a checkpoint was written, and no other.

    Args:
        checkpoint: What is going to be restored; its counters are changed.

    Returns:
        When it was written, for :func:`go_on`.
    """
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    for name, instant in (("epoch_progress", Instant.EPOCH_END), ("epoch_loop.batch_progress", Instant.BATCH_END)):
        counts = [loop[name]["total"], loop[name]["current"]] if name in loop else []
        if counts and all(count["ready"] == count["processed"] == count["completed"] + 1 for count in counts):
            for count in counts:
                count["completed"] += 1
            return instant
    progress = loop.get("epoch_loop.batch_progress")
    if progress and progress["current"]["ready"] > progress["current"]["processed"]:
        for count in (progress["total"], progress["current"]):
            count["ready"] = count["started"] = count["processed"]
        progress["is_last_batch"] = False
        return Instant.IN_STEP
    return Instant.OTHER


def put_accumulation_first(trainer: Trainer) -> None:
    """Let schedules of accumulation come before other callbacks: one refuses what :func:`go_on` sets on its behalf."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    schedules = [c for c in callbacks if isinstance(c, either(GradientAccumulationScheduler))]
    if schedules:  # another list: Lightning is going through the present one
        trainer.callbacks = [*schedules, *(c for c in callbacks if c not in schedules)]  # type: ignore[attr-defined]


def go_on(trainer: Trainer, instant: Instant) -> bool:
    """Make the fit loop, which has restored its counters and not begun yet, go on with what is to be done next.

    Args:
        trainer: In its `on_train_start`.
        instant: When the checkpoint was written.

    Returns:
        Whether that is in the middle of an epoch.
    """
    loop = trainer.fit_loop
    epochs = loop.epoch_progress
    was_cut = not loop.restarted_mid_epoch and is_epoch_unfinished(trainer)  # by `max_steps`
    if was_cut and loop.epoch_loop.restarting:
        for count in _counts(epochs):
            count.processed = count.completed = count.started - 1
        set_restart_stage(loop, fit_loop.RestartStage.RESTARTED_MID_EPOCH)
    if loop.restarted_mid_epoch:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # it is set by a connector
            if isinstance(callback, either(GradientAccumulationScheduler)):  # it looks at the beginning of epochs only
                callback.on_train_epoch_start(trainer)
        if instant is Instant.BATCH_END:
            _go_on_from_batch_end(trainer)
        elif instant is Instant.IN_STEP and validation_is_due(trainer):
            count_step_for_loggers(trainer, -1)  # it counts the batch before that validation again
        take_for_begun(loop)  # or schedulers that look at a metric would pass this epoch over
        return True
    if instant is Instant.EPOCH_END:
        epochs.current.completed -= 1  # they count from the epoch's number
        loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        epochs.current.completed += 1
    loop.reset_restart_stage()
    take_for_begun(loop, loop.epoch_loop, loop.epoch_loop.val_loop)
    return False


def _go_on_from_batch_end(trainer: Trainer) -> None:
    """Do next what comes after a batch: a validation, if one is due, and the next batch or the end of the epoch."""
    if validation_is_due(trainer):
        # As if the validation had been interrupted; it starts from its first batch.
        val_loop = trainer.fit_loop.epoch_loop.val_loop
        set_restart_stage(val_loop, evaluation_loop.RestartStage.RESTARTED_MID_EVALUATION)
        take_for_begun(val_loop)
    elif not accumulates(trainer):
        count_step_for_loggers(trainer)


def train_loaders(trainer: Trainer) -> list[Any]:
    """The training loaders, in the order in which `CombinedLoader` has them."""
    loaders = trainer.train_dataloader
    return [] if loaders is None else CombinedLoader(loaders).flattened


def begin_data_anew(trainer: Trainer) -> None:
    """Let the training loaders be iterated from where their state says, if they have been iterated too early.

    They have where `trainer.estimated_stepping_batches` was asked for, which loads the data before a checkpoint's
    counters are there.
    """
    fetcher = data_fetcher(trainer)
    iter(fetcher)
    if trainer.fit_loop.restarted_mid_epoch and not is_epoch_unfinished(trainer):
        fetcher.iterator = iter(())  # what is left is the end of the epoch


def is_epoch_unfinished(trainer: Trainer) -> bool:
    """Whether there are batches left in the present epoch, or the one that has just ended."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return not (progress.is_last_batch or progress.current.ready >= trainer.num_training_batches)


def num_unfinished(trainer: Trainer) -> int:
    """How many batches have been taken and not trained on: 1 in the middle of a step, otherwise 0."""
    _, count = _counts(trainer.fit_loop.epoch_loop.batch_progress)
    return count.ready - count.processed


def is_within_batch(trainer: Trainer) -> bool:
    """Whether a batch has been begun and its `on_train_batch_end` is not over."""
    _, count = _counts(trainer.fit_loop.epoch_loop.batch_progress)
    return bool(count.ready > count.completed)


def _counts(progress: Any) -> tuple[Any, Any]:
    return progress.total, progress.current
