"""Runs of a sweep that train together in one process, over one backbone."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from typing_extensions import override

from asym_lightning.callbacks import RunRecord
from asym_lightning.cli.errors import one_sentence
from asym_lightning.cli.interrupts import heard, interruptible
from asym_lightning.cli.processes import report_error
from asym_lightning.cli.quiet import hushed, show_plain_warnings
from asym_lightning.cli.sweep.outcome import write_outcome
from asym_lightning.cli.sweep.plan import Run
from asym_lightning.cli.sweep.run_process import print_to
from asym_lightning.cli.training import TrainingCLI
from asym_lightning.lifecycle.trained_together import Together


def fit_together(runs: Sequence[Run]) -> None:
    """Make runs of `fit`, each with its own files and outcome; one that fails does not stop the others."""
    together = Together()
    fits = [functools.partial(_fit, run, together.callback()) for run in runs]
    try:
        with interruptible(), hushed():
            show_plain_warnings()
            together.run(fits, [functools.partial(print_to, run) for run in runs])
    except KeyboardInterrupt:  # runs that are not over have no outcome, and are made anew
        heard()


def _fit(run: Run, callback: Callback) -> None:
    error = None
    try:
        _MemberCLI(run.arguments, callback)
    except Exception as failure:
        if "--debug" in run.arguments:
            traceback.print_exc()
        error = one_sentence(failure)
        report_error(error)
    write_outcome(run, error)


class _MemberCLI(TrainingCLI):
    """A fit whose backbone computes together with others.

    Args:
        args: A subcommand and its options.
        callback: What it has of :class:`Together`; no part of its config.
    """

    def __init__(self, args: Sequence[str], callback: Callback) -> None:
        self._callback = callback
        super().__init__(args)

    @override
    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with one callback more."""
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
        for record in callbacks:
            if isinstance(record, RunRecord):
                record.record["saved_bytes"] = None  # a pass for all keeps what it keeps for all
        callbacks.append(self._callback)
        return trainer
