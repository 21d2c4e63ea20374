"""How far a sweep is: a live table on a terminal, a line a run elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from asym_lightning.cli.sweep.execution import Watcher
from asym_lightning.cli.sweep.outcome import FAILED, FINISHED, read_outcome
from asym_lightning.cli.sweep.plan import Run
from asym_lightning.core.run_files import RECORD, read_facts

REFRESH_SECONDS = 1.0


@contextmanager
def shown_progress(runs: Sequence[Run]) -> Iterator[Watcher]:
    """Show the progress of `runs` while the context lasts; the value is what `execute_runs` calls."""
    console = Console()
    if not console.is_terminal:
        yield _line_by_line(runs, console)
        return
    with Live(console=console, auto_refresh=False) as live:
        last = 0.0

        def watch(active: Sequence[Run], waiting: Sequence[Run]) -> None:
            nonlocal last
            if time.monotonic() - last > REFRESH_SECONDS or not active:
                last = time.monotonic()
                live.update(progress_table(runs, active), refresh=True)

        yield watch


def progress_table(runs: Sequence[Run], active: Sequence[Run]) -> Table:
    """Return a table with a row for each task, arm and rate: how many seeds are through, and their validation score."""
    table = Table("task", "arm", "rate", "done", "running", "failed", "validation")
    for column in table.columns[2:]:
        column.justify = "right"
    running = {run.name for run in active}
    groups: dict[tuple[str, str, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.task, run.arm, run.learning_rate), []).append(run)
    for (task, arm, rate), members in groups.items():
        statuses = [_status(run) for run in members]
        scores = [score for run in members if (score := _validation(run)) is not None]
        num_running = sum(run.name in running for run in members)
        table.add_row(
            task,
            arm,
            f"{rate:g}",
            f"{statuses.count(FINISHED)}/{len(members)}",
            str(num_running or ""),
            f"[bold]{failed}[/bold]" if (failed := statuses.count(FAILED)) else "",
            f"{sum(scores) / len(scores):.4f}" if scores else "",
        )
    return table


def _line_by_line(runs: Sequence[Run], console: Console) -> Watcher:
    before: list[Run] = []
    started = time.monotonic()
    to_try_again = {run.name for run in runs if _status(run) == FAILED}
    if finished := sum(_status(run) == FINISHED for run in runs):
        console.print(f"{finished} of {len(runs)} runs are finished already")
    if to_try_again:
        console.print(f"{len(to_try_again)} runs failed before and are tried again")

    def watch(active: Sequence[Run], waiting: Sequence[Run]) -> None:
        nonlocal before
        for run in before:
            if run in active or not (status := _status(run)):
                continue
            score = _validation(run)
            said = f", validation {score:.4f}" if score is not None else ""
            clock = f"{time.monotonic() - started:.0f} s"
            to_try_again.discard(run.name)
            over = sum(one.name not in to_try_again and _status(one) is not None for one in runs)
            count = f"[{over}/{len(runs)}]"  # those that another sweep made included
            console.print(f"{count} {run.name} {status}{said} ({clock})", markup=False, soft_wrap=True)
        before = list(active)

    return watch


def _status(run: Run) -> str | None:
    outcome = read_outcome(run)
    return outcome.status if outcome else None


def _validation(run: Run) -> float | None:
    return read_facts(run.directory, RECORD).get("validation")
