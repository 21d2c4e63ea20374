"""Digits at four angles, one task after another: forgetting with one adapter, with slots, and with separate adapters.

    python -m benchmarks.slots                           # writes benchmarks/results/slots.md

All arms start from the bundled backbone and learn the first angle alike, head included; then the head stays. `one
adapter` trains its B on; `slots` merges what a task has learned and trains the next one in the next slot; `separate`
keeps an adapter for each angle and is told which. Forgetting is what an earlier angle has lost at the end since it was
learned.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from asym_lightning.adapters import AdapterConfig, inject_adapters, merge_adapters, trainable_parameters
from asym_lightning.data.digits import DigitsDataModule
from asym_lightning.modules.timm_backbone import create_timm_backbone
from benchmarks.machine import describe

OUTPUT = Path(__file__).parent / "results" / "slots.md"
ANGLES = (0, 90, 180, 270)
ARMS = ("one adapter", "slots", "separate")
LEARNING_RATE = 0.01


def measure(arm: str, seed: int, epochs: int, angles: Sequence[float] = ANGLES) -> list[list[float]]:
    """Test accuracies at all angles after each task, a row a task."""
    torch.manual_seed(seed)
    data = [_data(angle) for angle in angles]
    model = create_timm_backbone("vit_digits", 10)
    _adapt(model, seed, slot=0)
    _train(model, data[0], epochs)
    model.head.requires_grad_(False)
    first, table = copy.deepcopy(model), []
    models = [model]
    for task in range(len(angles)):
        if task and arm == "separate":
            models.append(copy.deepcopy(first))
        elif task and arm == "slots":
            merge_adapters(model, keep_weights=False)
            _adapt(model, seed, slot=task)
            model.head.requires_grad_(False)
        if task:
            _train(models[-1], data[task], epochs)
        of_angles = models + models[-1:] * (len(angles) - len(models))
        table.append([_accuracy(m if arm == "separate" else model, d) for m, d in zip(of_angles, data, strict=True)])
    return table


def _data(angle: float) -> DigitsDataModule:
    data = DigitsDataModule(angles=[angle])
    data.setup("fit")
    return data


def _adapt(model: nn.Module, seed: int, slot: int) -> None:
    inject_adapters(model, AdapterConfig(rank=8, targets=["q", "k", "v"], share_a=True, seed=seed, slot=slot))


def _train(model: nn.Module, data: DigitsDataModule, epochs: int) -> None:
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], LEARNING_RATE)
    batches = data.train_dataloader()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    model.train()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
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
        "angles have lost since they were learned.",
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
    tables = {arm: [measure(arm, seed, options.epochs) for seed in options.seeds] for arm in ARMS}
    command = f"python -m benchmarks.slots --epochs {options.epochs} --seeds {' '.join(map(str, options.seeds))}"
    text = page(tables, command, describe(torch.device("cpu"), 1))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
