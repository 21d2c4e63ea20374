"""Digits at four angles, one task after another: forgetting with one adapter, with slots, and with separate adapters.

    python -m benchmarks.slots                           # writes benchmarks/results/slots.md

All arms start from the bundled backbone and learn the first angle alike, head included; then the head stays. `one
adapter` trains its B on; `slots` merges what a task has learned and trains the next one in the next slot of the seeded
matrix; slots beside inputs draw A from data among the directions that earlier tasks' inputs leave; `separate` keeps
an adapter for each angle and is told which. Forgetting is what an earlier angle has lost at the end since it was
learned.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters import (
    AdapterConfig,
    CalibrationStatistics,
    inject_adapters,
    merge_adapters,
    reset_adapters,
    trainable_parameters,
)
from asym_lightning.adapters.files.task_inputs import TaskInputs
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics, drawn_from
from asym_lightning.data.images.digits import DigitsDataModule
from asym_lightning.modules.images.timm_backbone import create_timm_backbone
from benchmarks.machine import describe

OUTPUT = Path(__file__).parent / "results" / "slots.md"
ANGLES = (0, 90, 180, 270)
# Arms by name, with the share of earlier tasks' inputs beside which A is drawn.
ARMS = {
    "one adapter": None,
    "slots": None,
    "slots beside 0.9 of inputs": 0.9,
    "slots beside 0.99 of inputs": 0.99,
    "slots beside 0.999 of inputs": 0.999,
    "separate": None,
}
RULE = "gradient"
LEARNING_RATE = 0.01


def measure(arm: str, seed: int, epochs: int, angles: Sequence[float] = ANGLES) -> list[list[float]]:
    """Test accuracies at all angles after each task, a row a task."""
    data = [_data(angle) for angle in angles]
    first, table = _first(seed, epochs, angles[0]), []
    model = copy.deepcopy(first)
    torch.manual_seed(seed)
    models, share, seen = [model], ARMS[arm], TaskInputs()
    for task in range(len(angles)):
        if task and arm == "separate":
            models.append(copy.deepcopy(first))
        elif task and arm.startswith("slots"):
            merge_adapters(model, keep_weights=False)
            if share is None:
                _adapt(model, seed, slot=task)
            else:
                _adapt(model, seed, slot=task, rule=RULE, draw=False)
                drawn = drawn_from(model, _statistics(model, data[task], taken=seen.before(task)))
                reset_adapters(model, statistics=drawn)
            model.head.requires_grad_(False)
        if task:
            _train(models[-1], data[task], epochs)
        if share is not None:
            inputs = {key.rpartition(".")[0]: found.inputs for key, found in _statistics(model, data[task])}
            seen = seen.with_task(task, inputs, share)
        of_angles = models + models[-1:] * (len(angles) - len(models))
        table.append([_accuracy(m if arm == "separate" else model, d) for m, d in zip(of_angles, data, strict=True)])
    return table


@functools.cache
def _first(seed: int, epochs: int, angle: float) -> nn.Module:
    """A model that has learned the first task, as all arms have."""
    torch.manual_seed(seed)
    model = create_timm_backbone("vit_digits", 10)
    _adapt(model, seed, slot=0)
    _train(model, _data(angle), epochs)
    model.head.requires_grad_(False)
    return model


def _data(angle: float) -> DigitsDataModule:
    data = DigitsDataModule(angles=[angle])
    data.setup("fit")
    return data


def _adapt(model: nn.Module, seed: int, slot: int, rule: str = "rand", *, draw: bool = True) -> None:
    config = AdapterConfig(f"hB_zero_A_{rule}", rank=8, targets=["q", "k", "v"], share_a=True, seed=seed, slot=slot)
    inject_adapters(model, config, draw=draw)


def _statistics(
    model: nn.Module, data: DigitsDataModule, **options: Any
) -> Iterator[tuple[str, CalibrationStatistics]]:
    model.train()
    batches = list(islice(data.train_dataloader(), 8))
    return calibration_statistics(model, adapter_sites(model), batches, lambda batch: _loss(model, *batch), **options)


def _loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), labels)


def _train(model: nn.Module, data: DigitsDataModule, epochs: int) -> None:
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], LEARNING_RATE)
    batches = data.train_dataloader()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            _loss(model, images, labels).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _accuracy(model: nn.Module, data: DigitsDataModule) -> float:
    images, labels = next(iter(data.test_dataloader()))
    predicted: Tensor = model.eval()(images).argmax(1)
    return float((predicted == labels).float().mean())


def forgetting(table: Sequence[Sequence[float]]) -> float:
    """The mean of what all angles but the last have lost since they were learned.

    >>> round(forgetting([[0.9, 0.1], [0.6, 0.8]]), 3)
    0.3
    """
    return statistics.mean(table[task][task] - table[-1][task] for task in range(len(table) - 1))


def page(tables: dict[str, list[list[list[float]]]], command: str, machine: str) -> str:
    """The results as a page."""
    lines = [
        "# Tasks in slots",
        "",
        f"`{command}`",
        "",
        "Digits at four angles in a row, B-only of rank 8 on q, k and v; test accuracy, mean over seeds, at each angle",
        "after the last task; as learned: the mean of those right after each task; forgetting: what the first three",
        f"angles have lost since they were learned. Slots beside inputs: A by `{RULE}`, orthogonal to the directions",
        "that hold this share of the mean square of earlier tasks' inputs.",
        "",
        f"{machine}.",
        "",
        f"| arm | {' | '.join(f'{angle:g}°' for angle in ANGLES)} | mean | as learned | forgetting |",
        f"|---|{'---|' * (len(ANGLES) + 3)}",
    ]
    for arm, of_seeds in tables.items():
        last = [statistics.mean(table[-1][task] for table in of_seeds) for task in range(len(ANGLES))]
        learned = statistics.mean(table[task][task] for table in of_seeds for task in range(len(table)))
        lost = statistics.mean(map(forgetting, of_seeds))
        cells = [*last, statistics.mean(last), learned, lost]
        lines.append(f"| {arm} | {' | '.join(f'{value:.3f}' for value in cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of A, the head and the order")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tables: dict[str, list[list[list[float]]]] = {arm: [] for arm in ARMS}
    for number, seed in enumerate(options.seeds, 1):
        for arm, of_seeds in tables.items():
            of_seeds.append(measure(arm, seed, options.epochs))
        seeds = " ".join(map(str, options.seeds[:number]))
        command = f"python -m benchmarks.slots --epochs {options.epochs} --seeds {seeds}"
        text = page(tables, command, describe(torch.device("cpu"), 1))
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
