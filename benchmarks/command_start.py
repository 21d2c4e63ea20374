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

from asym_lightning.cli.commands import TOOLS

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
    # The help of `lm_eval` is that of lm-evaluation-harness.
    **{f"asym-lightning {tool} --help": ([tool, "--help"], 0.5) for tool in TOOLS if tool != "lm_eval"},
}
FIT_LIMIT = 1.15
FLOOR_START, FIT_STEP = f"`{FLOOR}`, s", "`lightning fit` to the first step, s"


def measure_commands(runs: int, base: Path | None) -> dict[str, float]:
    """Median seconds of all commands, in turn with those of the checkout `base`, which are printed beside them.

    One run is made before and not counted: it compiles what has no bytecode yet, and the C kernels.
    """
    roots = [ROOT] if base is None else [ROOT, base]
    figures: dict[str, float] = {}

    def keep(name: str, seconds: Sequence[float]) -> None:
        figures[name] = seconds[0]
        print(f"{name:60s}", *(f"{value:6.2f}" for value in seconds), flush=True)

    for name, (arguments, _) in COMMANDS.items():
        keep(f"`{name}`, s", _medians([["-c", PROGRAM, *arguments]] * len(roots), roots, runs))
    steps = [["-c", PROGRAM, "fit", *QUICKSTART, *FIRST_STEP] for _ in roots]
    floor, *fits = _medians([["-c", FLOOR], *steps], [ROOT, *roots], runs)
    keep(FLOOR_START, [floor])
    keep(FIT_STEP, fits)
    return figures


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
