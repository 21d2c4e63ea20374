"""Run a sweep's runs, a few at a time, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from asym_lightning.cli.class_names import modules_named
from asym_lightning.cli.interrupts import heard
from asym_lightning.cli.sweep.outcome import FAILED, is_finished, read_outcome, write_outcome
from asym_lightning.cli.sweep.plan import Run
from asym_lightning.cli.sweep.run_process import EXIT_CLAIMED_ELSEWHERE, execute, execute_together

POLL_SECONDS = 0.1
RETRY_SECONDS = 2.0  # for a run that another sweep is at

# Importing torch and Lightning takes longer than a small run. The fork server does it once, with the classes that the
# configs name; each run is forked from it: clean state, no start-up, and a crash takes only that run along.
PRELOADED = ("asym_lightning.cli.training", "asym_lightning.cli.sweep.run_process")

Watcher = Callable[[Sequence[Run], Sequence[Run]], None]


def execute_runs(
    runs: Sequence[Run],
    sweep_directory: Path,
    jobs: int = 1,
    watch: Watcher = lambda *_: None,
    *,
    together: int = 1,
) -> None:
    """Make the runs that are not finished; a run that fails does not stop the others.

    Runs that another sweep is at are waited for, so that in the end all runs are over.

    Args:
        runs: The runs.
        sweep_directory: The sweep's directory.
        jobs: Number of processes at a time.
        watch: Called often with the runs that are being made and those that are still to be made.
        together: Number of runs that one process makes at once.

    Raises:
        ValueError: If `jobs` is less than 1, or a finished run was made with other settings.
        KeyboardInterrupt: If the sweep is interrupted or terminated; its runs are then ended.
    """
    if jobs < 1:
        raise ValueError(f"`--jobs` must be at least 1, not {jobs}.")
    waiting = [run for run in runs if (outcome := read_outcome(run)) is None or outcome.status == FAILED]
    if not waiting:
        return
    # With several jobs on the cores of one machine, libraries that each take them all get in one another's way.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, *modules_named(_text_of(waiting))])
    active: list[tuple[Sequence[Run], BaseProcess]] = []
    not_before: dict[str, float] = {}
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or active:
            while len(active) < jobs and (chosen := _next_runs(waiting, not_before, together)):
                waiting = [run for run in waiting if run not in chosen]
                chosen = [run for run in chosen if not is_finished(run)]  # by another sweep
                if not chosen:
                    continue
                target, what = (execute, chosen[0]) if len(chosen) == 1 else (execute_together, chosen)
                process: BaseProcess = context.Process(target=target, args=(what, sweep_directory), name=chosen[0].name)
                process.start()
                active.append((chosen, process))
            watch([run for of_process, _ in active for run in of_process if read_outcome(run) is None], waiting)
            time.sleep(POLL_SECONDS)
            for pair in [pair for pair in active if not pair[1].is_alive()]:
                active.remove(pair)
                of_process, process = pair
                for run in of_process:
                    if read_outcome(run) is not None:
                        continue
                    if process.exitcode == EXIT_CLAIMED_ELSEWHERE:
                        waiting.append(run)
                        not_before[run.name] = time.monotonic() + RETRY_SECONDS
                    else:
                        write_outcome(run, f"its process ended {_how(process.exitcode)} before the run was over")
        watch([], [])
    finally:
        heard()
        signal.signal(signal.SIGTERM, terminated)
        for _, process in active:
            process.terminate()
        for _, process in active:
            process.join()


def _text_of(runs: Sequence[Run]) -> str:
    """Options and configs of runs, which between them name every class."""
    arguments = {argument for run in runs for argument in run.arguments}
    configs = {path for run in runs for option, path in pairwise(run.arguments) if option == "--config"}
    return "\n".join([*arguments, *(Path(config).read_text() for config in configs)])


def _next_runs(waiting: Sequence[Run], not_before: dict[str, float], number: int) -> list[Run]:
    now = time.monotonic()
    return [run for run in waiting if not_before.get(run.name, now) <= now][:number]


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt("the sweep was terminated; the same command continues it")


def _how(exitcode: int | None) -> str:
    return f"by signal {-exitcode}" if exitcode and exitcode < 0 else f"with exit code {exitcode}"
