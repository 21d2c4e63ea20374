"""What the process of one run does."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
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
        # What an interrupted or failed attempt left: Lightning would refuse to write over its config.
        shutil.rmtree(run.directory, ignore_errors=True)
        run.directory.mkdir(parents=True)
        _redirect_output(run.directory / LOG)
        # A child of a fork server starts workers of data loaders by another one, which first imports everything anew.
        multiprocessing.set_start_method(None, force=True)
        from asym_lightning.cli import EXIT_INTERRUPTED, main

        code = main(run.arguments)
        if code != EXIT_INTERRUPTED:
            write_outcome(run, None if code == 0 else error_in_log(run) or f"fit ended with exit code {code}")


def error_in_log(run: Run) -> str | None:
    """Return the sentence that `fit` ended with, if it ended with one."""
    log = run.directory / LOG
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)


def _redirect_output(path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
