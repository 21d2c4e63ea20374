"""One run, and the file of all that are done."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from asym_lightning.adapters import trainable_parameters
from benchmarks.frozen_a.arms import Arm
from benchmarks.frozen_a.tasks.task import FOLDER, Task
from benchmarks.run_file import append_row

# Parts of names of adapters' parameters, ours and `peft`'s.
ADAPTERS = ("factor_", "lora_", "miss_")
# While the best rate is at an edge, one more is tried beyond, at most so often.
NUM_EXTENSIONS = 2
# Every rate is tried with so many seeds, and the best ones with all.
NUM_SCREENED_SEEDS, NUM_FINALISTS = 2, 2


@dataclass(frozen=True)
class Run:
    task: str
    arm: str
    rate: float
    seed: int
    val: float
    test: float
    trained: int
    seconds: float


def run(task: Task, arm: Arm, rate: float, seed: int) -> Run:
    """Train once; scores are those of the last epoch."""
    seed_everything(seed, verbose=False)
    module, data = task.module(arm, rate, seed), task.data(seed)
    trainer = task.trainer(arm.callbacks(task.num_steps, task.head_steps))
    started = time.monotonic()
    trainer.fit(module, datamodule=data)
    seconds = time.monotonic() - started
    scorer = Trainer(
        accelerator="cpu", default_root_dir=FOLDER, logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    val = scorer.validate(module, datamodule=data, verbose=False)
    test = scorer.test(module, datamodule=data, verbose=False)
    found = {name: value for of_set in (*val, *test) for name, value in of_set.items()}
    trained = sum(p.numel() for name, p in trainable_parameters(module) if any(part in name for part in ADAPTERS))
    return Run(
        task.name, arm.name, rate, seed, round(found[task.val], 4), round(found[task.test], 4), trained,
        round(seconds, 1),
    )  # fmt: skip


def read_runs(path: Path) -> list[Run]:
    """The runs of a file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Run(r["task"], r["arm"], float(r["rate"]), int(r["seed"]), float(r["val"]), float(r["test"]),
                int(r["trained"]), float(r["seconds"]))
            for r in csv.DictReader(file)
        ]  # fmt: skip


def run_arm(task: Task, arm: Arm, runs: list[Run], path: Path, seeds: Sequence[int]) -> Iterator[Run]:
    """Run what is not done yet of an arm: all rates with a few seeds, more rates while the best is at an edge, then
    the best rates with all seeds.

    Args:
        task: The task.
        arm: The arm.
        runs: All that are done; what is run is added.
        path: The file that it is added to.
        seeds: Those to run.
    """

    def run_missing(rates: Sequence[float], seeds: Sequence[int]) -> Iterator[Run]:
        for rate in rates:
            for seed in seeds:
                if not any((r.task, r.arm, r.rate, r.seed) == (task.name, arm.name, rate, seed) for r in runs):
                    runs.append(run(task, arm, rate, seed))
                    append_row(path, asdict(runs[-1]))
                    yield runs[-1]

    def extend(seeds: Sequence[int]) -> bool:
        """Add a rate beyond the best where that is the largest or smallest; return whether one was added."""
        best = by_rate(runs, task.name, arm.name, seeds)[0][0].rate
        if len(rates) == len(task.rates) + NUM_EXTENSIONS or best not in (rates[0], rates[-1]):
            return False
        if best == rates[-1]:
            rates.append(float(f"{rates[-1] ** 2 / rates[-2]:.3g}"))
        else:
            rates.insert(0, float(f"{rates[0] ** 2 / rates[1]:.3g}"))
        return True

    screened = seeds[:NUM_SCREENED_SEEDS]
    done = {r.rate for r in runs if (r.task, r.arm) == (task.name, arm.name)}
    rates = sorted(done | {float(f"{rate * arm.rate_factor:.3g}") for rate in task.rates})
    while True:
        yield from run_missing(rates, screened)
        if extend(screened):
            continue
        finalists = by_rate(runs, task.name, arm.name, screened)[:NUM_FINALISTS]
        yield from run_missing([group[0].rate for group in finalists], seeds)
        if not extend(seeds):
            return


def by_rate(runs: Sequence[Run], task: str, arm: str, seeds: Sequence[int] | None = None) -> list[list[Run]]:
    """The runs of an arm by rate, the best in validation first; each group in the order of seeds.

    Args:
        runs: All that are done.
        task: Name of the task.
        arm: Name of the arm.
        seeds: Runs of these count, and rates that lack one do not; None means the most that any rate has.
    """
    groups: dict[float, list[Run]] = {}
    for r in runs:
        if (r.task, r.arm) == (task, arm) and (seeds is None or r.seed in seeds):
            groups.setdefault(r.rate, []).append(r)
    most = max((len(group) for group in groups.values()), default=0)
    complete = [sorted(group, key=lambda r: r.seed) for group in groups.values() if len(group) == most]
    return sorted(complete, key=lambda group: -statistics.fmean(r.val for r in group))
