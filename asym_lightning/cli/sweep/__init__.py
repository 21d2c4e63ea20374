"""`asym-lightning sweep`: arms x learning rates x seeds as ordinary runs, and their report."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.cli.sweep.execution import execute_runs
from asym_lightning.cli.sweep.options import sweep_of, sweep_parser
from asym_lightning.cli.sweep.outcome import FAILED, read_outcome
from asym_lightning.cli.sweep.plan import Run, Sweep, check_go_together, plan_runs
from asym_lightning.cli.sweep.progress import shown_progress
from asym_lightning.cli.sweep.slurm import array_script
from asym_lightning.core.files import write_text
from asym_lightning.core.kinds import Count, check_value


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code: 1 if a run failed."""
    own, further = list(arguments), []
    if "--" in own:
        own, further = own[: own.index("--")], own[own.index("--") + 1 :]
    options = sweep_parser().parse_args(own)
    check_value("--jobs", options.jobs, Count)
    check_value("--together", options.together, Count)
    sweep = sweep_of(options, further)
    if options.together > 1:
        check_go_together(sweep)
        if options.slurm or options.only is not None:
            raise ValueError("`--together` makes runs in one process, and `--slurm` and `--only` each in its own.")
    runs = plan_runs(sweep)
    if options.only is not None and not 0 <= options.only < len(runs):
        raise ValueError(f"`--only` must be from 0 to {len(runs) - 1}, the last run, not {options.only}.")
    if options.dry_run:
        print("\n".join(run.command for run in runs))
        return 0
    if options.slurm:
        return _write_slurm(sweep, [part for part in arguments if part != "--slurm"], len(runs), options.jobs)
    if options.only is not None:
        runs = runs[options.only : options.only + 1]
    with shown_progress(runs) as watch:
        execute_runs(runs, sweep.directory, options.jobs, watch, together=options.together)
    failed = _print_failed(runs)
    if options.only is None:
        from asym_lightning.cli import report  # needs no torch, and is not needed above

        report.main([str(sweep.directory), "--out", str(sweep.directory)])
    return 1 if failed else 0


def _write_slurm(sweep: Sweep, arguments: Sequence[str], num_runs: int, jobs: int) -> int:
    if "--" in arguments:  # `--only`, which is added at the end, must stand before the options of fit
        raise ValueError("with `--slurm`, name options for every fit under `options` in a sweep file, not after --.")
    path = sweep.directory / "sweep.sbatch"
    write_text(path, array_script(arguments, num_runs, sweep.directory, jobs))
    print(f"{num_runs} runs: sbatch {path}\nafterwards: asym-lightning report {sweep.directory}")
    return 0


def _print_failed(runs: Sequence[Run]) -> int:
    failed = [(run, outcome) for run in runs if (outcome := read_outcome(run)) and outcome.status == FAILED]
    for run, outcome in failed:
        print(f"failed: {run.name}: {outcome.error}")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again.")
    return len(failed)
