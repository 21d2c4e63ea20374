"""Processor seconds until a command answers, and until `fit` has made its first step, in this checkout and another."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = "import sys; from asym_lightning.cli import main; sys.exit(main(sys.argv[1:]))"
FLOOR = "import torch, lightning, timm"
QUICKSTART = ["--config", "{root}/configs/quickstart.yaml"]  # of the checkout that is measured
FIRST_STEP = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--test_after_fit=false"]
# Beside each, the most that it may take: seconds, or for the first step of `fit` a multiple of the floor.
COMMANDS: dict[str, tuple[list[str], float]] = {
    "lightning": ([], 0.5),
    "lightning --help": (["--help"], 0.5),
    "lightning --version": (["--version"], 0.5),
    "lightning fitt": (["fitt"], 0.5),
    "lightning fit --help": (["fit", "--help"], 0.5),
    "lightning fit --model.help ImageClassifier": (["fit", "--model.help", "ImageClassifier"], 0.5),
    "lightning fit ... --trainer.max_epocs 3": (["fit", *QUICKSTART, "--trainer.max_epocs", "3"], 0.5),
    **{
        f"asym-lightning {tool} --help": ([tool, "--help"], 0.5)
        for tool in ("report", "export", "merge", "sweep", "similarity", "bounds", "estimate")
    },
}
FIT_LIMIT = 1.15


def print_table(runs: int, base: Path | None) -> None:
    """Measure all commands `runs` times, in turn with those of the checkout `base`, and print medians as a table.

    One run is made before and not counted: it compiles what has no bytecode yet, and the C kernels.
    """
    roots = [ROOT] if base is None else [ROOT, base]
    names = ["here", "base"][: len(roots)]
    print(f"| processor seconds, median of {runs} | {' | '.join(names)} | at most |\n|---|{'---:|' * (len(roots) + 1)}")
    for name, (arguments, limit) in COMMANDS.items():
        seconds = _medians([["-c", PROGRAM, *arguments]] * len(roots), roots, runs)
        print(f"| `{name}` | {' | '.join(f'{value:.2f}' for value in seconds)} | {limit} |", flush=True)
    steps = [["-c", PROGRAM, "fit", *QUICKSTART, *FIRST_STEP] for _ in roots]
    floor, *fits = _medians([["-c", FLOOR], *steps], [ROOT, *roots], runs)
    print(f"| `{FLOOR}` | {' | '.join([f'{floor:.2f}'] * len(roots))} | |")
    print(f"| `lightning fit` to the first step | {' | '.join(f'{value:.2f}' for value in fits)} | |")
    print(f"| of that import | {' | '.join(f'{value / floor:.2f}' for value in fits)} | {FIT_LIMIT} |")


def _medians(commands: Sequence[Sequence[str]], roots: Sequence[Path], runs: int) -> list[float]:
    """Medians of commands that run in turn, so that a slow minute slows them all."""
    rounds = [[_seconds(command, root) for command, root in zip(commands, roots, strict=True)] for _ in range(runs + 1)]
    return [statistics.median(values[1:]) for values in zip(*rounds, strict=True)]


def _seconds(arguments: Sequence[str], root: Path) -> float:
    """Processor seconds of Python, and of what it waits for, with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *(argument.replace("{root}", str(root)) for argument in arguments)]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode not in (0, 2):  # 2 is wrong usage, which some are
        raise RuntimeError(f"{arguments} ended with {run.returncode}: {run.stderr[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
