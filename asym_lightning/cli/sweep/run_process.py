"""What the process of one run does."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from asym_lightning.cli.sweep.claim import claimed
from asym_lightning.cli.sweep.outcome import is_finished, write_outcome
from asym_lightning.cli.sweep.plan import Run
from asym_lightning.core.run_files import LOG

EXIT_CLAIMED_ELSEWHERE = 75


def execute(run: Run, sweep_directory: Path) -> None:
    """Make a run, unless another process is at it or has finished it; never returns an error, `run.json` has it.

    Raises:
        SystemExit: With EXIT_CLAIMED_ELSEWHERE if another process has claimed the run.
    """
    with claimed(run.directory, sweep_directory) as is_ours:
        if not is_ours:
            sys.exit(EXIT_CLAIMED_ELSEWHERE)
        if is_finished(run):
            return
        _clear(run)
        print_to(run)
        from asym_lightning.cli import EXIT_INTERRUPTED, main

        code = main(run.arguments)
        if code != EXIT_INTERRUPTED:
            write_outcome(run, None if code == 0 else error_in_log(run) or f"fit ended with exit code {code}")


def execute_together(runs: Sequence[Run], sweep_directory: Path) -> None:
    """Make some runs in this process, as :func:`execute` makes one.

    Raises:
        SystemExit: With EXIT_CLAIMED_ELSEWHERE if another process has claimed some of them; the others are made.
    """
    with ExitStack() as claims:
        ours = [run for run in runs if claims.enter_context(claimed(run.directory, sweep_directory))]
        new = [run for run in ours if not is_finished(run)]
        for run in new:
            _clear(run)
        if new:
            from asym_lightning.cli.sweep.together import fit_together

            fit_together(new)
    if len(ours) < len(runs):
        sys.exit(EXIT_CLAIMED_ELSEWHERE)


def _clear(run: Run) -> None:
    # What an interrupted or failed attempt left: Lightning would refuse to write over its config.
    shutil.rmtree(run.directory, ignore_errors=True)
    run.directory.mkdir(parents=True)
    # A child of a fork server starts workers of data loaders by another one, which first imports everything anew.
    multiprocessing.set_start_method(None, force=True)


def error_in_log(run: Run) -> str | None:
    """Return the sentence that `fit` ended with, if it ended with one."""
    log = run.directory / LOG
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)


def print_to(run: Run) -> None:
    """Let the log of a run have what this process prints from now on."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(run.directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
