"""``python -m benchmarks``: adapters beside their peers, all arms interleaved in one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.arms import ARMS, GROUPS, select_arms
from benchmarks.cells import MODES, PRECISIONS, SUITES, TARGETS, Cell, cells_of
from benchmarks.figure_targets import check_figures
from benchmarks.figures import holds_figures, read_figures
from benchmarks.machine import describe
from benchmarks.measure import Settings
from benchmarks.models import SHAPES
from benchmarks.plots import write_plots
from benchmarks.processes import measure, prepare_process
from benchmarks.results import holds_rows, read_csv, write_csv
from benchmarks.step_profile import profile_arm
from benchmarks.table import markdown, write_markdown
from benchmarks.targets import check

RESULTS = Path("benchmarks/results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ValueError as error:
        # An arm, a length or a width that doesn't exist: one line, no traceback.
        raise SystemExit(str(error)) from error


def _run(options: argparse.Namespace) -> int:
    cells, settings = _cells(options), _settings(options)
    arms = select_arms(options.arms or [options.suite if options.suite in GROUPS else "default"])
    directory, name = Path(options.out), options.name or options.suite
    file = directory / f"{name}.csv"
    rows = read_csv(file) if options.resume and file.exists() else []
    measured_cells = {row.group for row in rows}
    for i, cell in enumerate(cells, 1):
        if (cell, settings.device.type, settings.precision, settings.threads) in measured_cells:
            print(f"[{i}/{len(cells)}] {cell}: is in {file}", flush=True)
            continue
        print(f"[{i}/{len(cells)}] {cell}", flush=True)
        measured = measure(cell, arms, settings)
        print(markdown(measured).split("\n\n", 1)[1], flush=True)
        rows += measured
        # After every cell, so that a run that is stopped leaves what it has measured.
        write_csv(rows, file)
        write_markdown(rows, directory / f"{name}.md")
    write_plots(rows, directory / name)
    return 0


def _report(options: argparse.Namespace) -> int:
    for path in map(Path, options.csv):
        rows = read_csv(path)
        write_markdown(rows, path.with_suffix(".md"))
        for written in [path.with_suffix(".md"), *write_plots(rows, path.with_suffix(""))]:
            print(written)
    return 0


def _check(options: argparse.Namespace) -> int:
    paths = [Path(path) for path in options.csv] or sorted(RESULTS.glob("*.csv"))
    figures = [path for path in paths if holds_figures(path)]
    cells = [path for path in paths if path not in figures and (options.csv or holds_rows(path))]
    verdicts = [verdict for path in cells for verdict in check(read_csv(path))]
    verdicts += check_figures({name: value for path in figures for name, (value, _) in read_figures(path).items()})
    print("\n".join(map(str, verdicts)))
    num_missed = sum(not verdict.is_met for verdict in verdicts)
    print(f"{len(verdicts) - num_missed} of {len(verdicts)} targets met")
    return int(num_missed > 0 or not verdicts)


def _profile(options: argparse.Namespace) -> int:
    settings = _settings(options)
    print(f"Measured on: {describe(settings.device, settings.threads)}.")
    for cell in _cells(options):
        for arm in options.arm:
            print("\n" + profile_arm(cell, arm, settings, options.top), flush=True)
    return 0


def _cells(options: argparse.Namespace) -> list[Cell]:
    axes = ("model", "depth", "width", "batch", "length", "targets", "rank", "mode", "processes")
    return cells_of(options.suite, {axis: getattr(options, axis) for axis in axes})


def _settings(options: argparse.Namespace) -> Settings:
    device = options.device or ("cuda" if options.suite == "cuda" else "cpu")
    if options.cpu_time and (options.threads != 1 or device != "cpu"):
        raise SystemExit("`--cpu-time` needs `--threads 1 --device cpu`: waiting threads use CPU time too.")
    if device == "cuda" and not torch.cuda.is_available():
        asked = "`--device cuda`" if options.device else f"`--suite {options.suite}`"
        raise SystemExit(
            f"{asked} needs a GPU, and torch sees none here: use `--device cpu`, and sizes that it can do."
        )
    torch.set_num_threads(options.threads)
    return Settings(
        device=torch.device(device),
        precision=options.precision or ("bf16-true" if device == "cuda" else "32"),
        threads=options.threads,
        dropout=options.dropout,
        rounds=options.rounds,
        warmup=options.warmup,
        fused=not options.unfused,
        counts_cpu_time=options.cpu_time,
        seed=options.seed,
        memory_limit=None if options.memory_gb is None else int(options.memory_gb * 1e9),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    run = commands.add_parser("run", help="measure, and write a csv, a table and plots")
    run.set_defaults(command=_run)
    _add_options(run)
    run.add_argument(
        "--arms",
        nargs="+",
        help=f"groups {', '.join(GROUPS)}, the suite's own or default if left out; {', '.join(ARMS)}",
    )
    run.add_argument("--resume", action="store_true", help="leave out the cells that the csv has")
    run.add_argument("--out", default=RESULTS, help="directory of the results")
    run.add_argument("--name", help="of the files; the suite's by default")

    report = commands.add_parser("report", help="write table and plots of a csv anew")
    report.set_defaults(command=_report)
    report.add_argument("csv", nargs="+")

    checks = commands.add_parser("check", help="compare results with the targets; fails where one is missed")
    checks.set_defaults(command=_check)
    checks.add_argument("csv", nargs="*", help="files of arms or figures; all that there are by default")

    profiles = commands.add_parser("profile", help="show where an arm's time over the floor goes")
    profiles.set_defaults(command=_profile)
    _add_options(profiles)
    profiles.add_argument("--arm", nargs="+", choices=ARMS, default=["ours-b-only"], help="one table each")
    profiles.add_argument("--top", type=int, default=15, help="operators to show")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", choices=SUITES, default="quick", help="sizes that the other options override")
    parser.add_argument("--model", nargs="+", choices=SHAPES)
    parser.add_argument("--depth", nargs="+", type=int, help="blocks")
    parser.add_argument("--width", nargs="+", type=int, help="hidden size")
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--length", nargs="+", type=int, help="tokens an example; a ViT's patches, a square")
    parser.add_argument("--targets", nargs="+", choices=TARGETS)
    parser.add_argument("--rank", nargs="+", type=int)
    parser.add_argument("--mode", nargs="+", choices=MODES)
    parser.add_argument("--processes", nargs="+", type=int, help="that train together by DDP, on a CPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda for the suite of that name, else cpu")
    parser.add_argument("--precision", choices=PRECISIONS, help="32 on a CPU and bf16-true on a GPU by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.05, help="of the arms with dropout")
    parser.add_argument("--unfused", action="store_true", help="AdamW as a loop instead of the fused one")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU instead of wall time, for one thread on a busy machine"
    )
    parser.add_argument(
        "--memory-gb", type=float, help="memory that may be taken; the machine's free memory by default"
    )
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of each arm")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them, at least 1")
    parser.add_argument("--seed", type=int, default=0)


if __name__ == "__main__":
    prepare_process()
    sys.exit(main())
