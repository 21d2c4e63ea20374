"""Runs that train together over one backbone, beside the same runs one after the other: time and memory.

    python -m benchmarks.together                        # writes benchmarks/results/together.md

Both are made by Lightning's Trainer in one process, interleaved, on one thread, of which the process's own time is
taken, from each run's fifth step to its last; a ratio is taken in each round, and the table has their median. Memory is
what is held at once: weights, each storage once, and what autograd keeps of a step.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig
from asym_lightning.adapters.stack.shared_backbone import Call, SharedBackbone
from asym_lightning.lifecycle.trained_together import Together
from asym_lightning.modules import ImageClassifier
from benchmarks.cells import Cell
from benchmarks.machine import describe
from benchmarks.memory import saved_bytes
from benchmarks.models import build_model

OUTPUT = Path(__file__).parent / "results" / "together.md"
COUNTS = (1, 2, 4, 8)
WARM_UP = 4  # passes are checked in steps 1, 2, 4, 8 and so on
VIT_S = Cell("vit-s", 2, None, 8, 49, "all-linear", 8, "eager")


class Task(NamedTuple):
    """What is trained: how a backbone is made, targets, and the shape of a batch."""

    backbone: Callable[[], str | nn.Module]
    targets: Any
    shape: tuple[int, int, int, int]


TASKS = {
    "digits ViT, 50 rows": Task(lambda: "vit_digits", ("q", "k", "v"), (50, 1, 8, 8)),
    "ViT-S, 2 blocks, 8 rows of 50 tokens": Task(lambda: build_model(VIT_S), "all-linear", (8, 3, 112, 112)),
    "the same, 1 row": Task(lambda: build_model(VIT_S), "all-linear", (1, 3, 112, 112)),
}


class Row(NamedTuple):
    """One number of runs of one task: time together over apart, and bytes of one run, and of all together."""

    task: str
    num_runs: int
    ratio: float
    weights: tuple[int, int]
    saved: tuple[int, int]


class Clock(Callback):
    """The process's time at the first step that counts and after the last."""

    def __init__(self) -> None:
        self.start = self.end = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == WARM_UP:
            self.start = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        self.end = time.process_time()


def measure(name: str, num_runs: int, steps: int, rounds: int) -> Row:
    """Time and memory of one cell."""
    task = TASKS[name]
    ratios = [_time_together(task, num_runs, steps) / _time_apart(task, num_runs, steps) for _ in range(rounds)]
    modules = [_module(task, seed).backbone for seed in range(num_runs)]
    images, labels = _batch(task)

    def loss(outputs: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    one = _bytes(modules[:1]), saved_bytes(lambda: loss(modules[0](images)), modules[0].parameters())
    shared = SharedBackbone()
    members = [shared.join(module) for module in modules]
    calls = [Call((images,), {}) for _ in members]
    kept = saved_bytes(
        lambda: torch.stack([loss(outputs) for outputs in shared.call(members, calls).outputs]).sum(),
        [parameter for module in modules for parameter in module.parameters()],
    )
    return Row(name, num_runs, statistics.median(ratios), (one[0], _bytes(modules)), (one[1], kept))


def _time_apart(task: Task, num_runs: int, steps: int) -> float:
    clocks = [Clock() for _ in range(num_runs)]
    for seed, clock in enumerate(clocks):
        _fit(task, seed, steps, [clock])
    return sum(clock.end - clock.start for clock in clocks)


def _time_together(task: Task, num_runs: int, steps: int) -> float:
    clocks, together = [Clock() for _ in range(num_runs)], Together()
    together.run(
        [functools.partial(_fit, task, seed, steps, [clock, together.callback()]) for seed, clock in enumerate(clocks)]
    )
    return max(clock.end for clock in clocks) - min(clock.start for clock in clocks)


def _fit(task: Task, seed: int, steps: int, callbacks: list[Callback]) -> None:
    torch.set_num_threads(1)  # of this thread
    images, labels = _batch(task, steps)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(_module(task, seed), DataLoader(TensorDataset(images, labels), task.shape[0]))


def _module(task: Task, seed: int) -> ImageClassifier:
    adapter = AdapterConfig(rank=8, targets=task.targets, seed=seed)
    module = ImageClassifier(task.backbone(), num_classes=10, adapter=adapter)
    module.configure_model()
    return module


def _batch(task: Task, number: int = 1) -> tuple[Tensor, Tensor]:
    rows = task.shape[0] * number
    return torch.randn(rows, *task.shape[1:]), torch.randint(10, (rows,))


def _bytes(modules: Iterable[nn.Module]) -> int:
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage() for m in modules for p in m.parameters()}
    return sum(storage.nbytes() for storage in storages.values())


def page(rows: Sequence[Row], command: str, machine: str) -> str:
    """The table as Markdown."""
    lines = [
        "# Training together\n",
        f"`{command}`\n",
        "B-only of rank 8, N runs with A's of their own seeds. Time: of a step of all runs together, over that of a",
        "step of each, one after the other. Memory in MB: weights and what autograd keeps; of N processes at once, of",
        "the N runs in one process, and the share.\n",
        f"{machine}.\n",
        "| task | N | time | N processes | together | memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        apart = row.num_runs * (row.weights[0] + row.saved[0])
        together = row.weights[1] + row.saved[1]
        lines.append(
            f"| {row.task} | {row.num_runs} | {row.ratio:.2f} | {apart / 1e6:.1f} | {together / 1e6:.1f} "
            f"| {together / apart:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.together", description=__doc__.split("\n\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of runs")
    parser.add_argument("--steps", type=int, default=7, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is repeated")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    rows = [measure(name, count, options.steps, options.rounds) for name in TASKS for count in options.counts]
    command = f"python -m benchmarks.together --steps {options.steps} --rounds {options.rounds}"
    text = page(rows, command, describe(torch.device("cpu"), 1))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
