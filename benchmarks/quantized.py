"""A quantised backbone beside a dense one: bytes of weights, bytes kept for the backward pass, and step time.

    python -m benchmarks.quantized                       # writes benchmarks/results/quantized.md
    python -m benchmarks.quantized --cpu-time            # on a machine that does other work too

Every arm takes one step in each round, in an order drawn anew; a ratio to the floor (the dense frozen backbone in the
same precision, with no adapters) is taken in each round, and the table has its median.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters, quantize_backbone
from benchmarks.cells import Cell
from benchmarks.machine import describe
from benchmarks.memory import saved_bytes
from benchmarks.models import build_model, first_block, make_loss

OUTPUT = Path(__file__).parent / "results" / "quantized.md"
CELLS = {
    "ViT-S, 4 blocks, 8 x 196 tokens": Cell("vit-s", 4, None, 8, 196, "all-linear", 8, "eager"),
    "ViT-S, 4 blocks, 1 x 196 tokens": Cell("vit-s", 4, None, 1, 196, "all-linear", 8, "eager"),
    "small Llama, 4 blocks, 4 x 256 tokens": Cell("llama-s", 4, None, 4, 256, "all-linear", 8, "eager"),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FLOOR = "floor"
ARMS = {FLOOR: None, "dense": None, "nf4": "nf4", "int8": "int8"}


class Row(NamedTuple):
    """One arm of one cell; bytes of linear weights outside the head, and two ratios to the floor."""

    cell: str
    precision: str
    arm: str
    weight_bytes: int
    saved: float
    seconds: float


def measure(name: str, precision: str, rounds: int, clock: Callable[[], float]) -> Iterator[Row]:
    """All arms of one cell."""
    cell, dtype = CELLS[name], DTYPES[precision]
    base = build_model(cell).to(dtype).requires_grad_(False)
    run = make_loss(cell, torch.device("cpu"))

    def loss(model: nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            return run(model)

    models = {arm: _prepare(arm, base, cell) for arm in ARMS}
    seconds = _race(models, loss, rounds, clock)
    saved = {arm: saved_bytes(lambda m=model: loss(m), model.parameters()) for arm, model in models.items()}
    for arm, model in models.items():
        ratios = [one / floor for one, floor in zip(seconds[arm], seconds[FLOOR], strict=True)]
        yield Row(name, precision, arm, _weight_bytes(model), saved[arm] / saved[FLOOR], statistics.median(ratios))


def _prepare(arm: str, base: nn.Module, cell: Cell) -> nn.Module:
    model = copy.deepcopy(base)
    if ARMS[arm] is not None:
        quantize_backbone(model, ARMS[arm], ["head"])
    if arm == FLOOR:
        # Backward as far as adapters in the first block would ask for.
        first_block(cell, model).register_forward_pre_hook(lambda _, x: (x[0].requires_grad_(), *x[1:]))
    else:
        inject_adapters(model, AdapterConfig(rank=cell.rank, targets=[cell.targets], heads=[]))
    return model


def _race(
    models: dict[str, nn.Module], loss: Callable[[nn.Module], torch.Tensor], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    order, draw = list(models), random.Random(0)
    seconds: dict[str, list[float]] = {arm: [] for arm in models}
    for step in range(rounds + 2):
        draw.shuffle(order)
        for arm in order:
            models[arm].zero_grad()
            start = clock()
            loss(models[arm]).backward()
            if step >= 2:  # the first two warm up
                seconds[arm].append(clock() - start)
    return seconds


def _weight_bytes(model: nn.Module) -> int:
    """Bytes of the linear layers' weights and scales, heads and output layers left out."""
    total = 0
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name not in ("head", "lm_head"):
            state = layer.state_dict()
            total += sum(state[key].nbytes for key in state if not key.startswith(("adapters.", "bias")))
    return total


def table(rows: list[Row], command: str, machine: str) -> str:
    """The results as a page."""
    lines = [
        "# Quantised backbones",
        "",
        f"`{command}`",
        "",
        "B-only of rank 8 on all linear layers. Weights: MiB of the linear layers, scales included. Saved (bytes kept",
        "for the backward pass) and step (forward and backward): ratios to the floor, the dense frozen backbone in the",
        "same precision with no adapters. The backbone is in that precision, the adapters are in float32; bfloat16 is",
        "with autocast.",
        "",
        f"{machine}.",
        "",
        "| cell | precision | backbone | weights, MiB | saved | step |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.arm != FLOOR:
            weights = f"{row.weight_bytes / 2**20:.1f}"
            lines.append(
                f"| {row.cell} | {row.precision} | {row.arm} | {weights} | {row.saved:.2f} | {row.seconds:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantized", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="timed steps of each arm")
    parser.add_argument("--threads", type=int, default=1, help="cores to use")
    parser.add_argument("--cpu-time", action="store_true", help="time by the process's own time; for one thread")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows = [row for name in CELLS for precision in DTYPES for row in measure(name, precision, options.rounds, clock)]
    flags = f" --threads {options.threads}" + (" --cpu-time" if options.cpu_time else "")
    page = table(rows, f"python -m benchmarks.quantized{flags}", describe(torch.device("cpu"), options.threads))
    options.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
