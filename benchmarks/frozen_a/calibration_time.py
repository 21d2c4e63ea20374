"""What choosing A by data costs besides the forward and backward passes that it needs.

    python -m benchmarks.frozen_a.calibration_time          # results/calibration_time.md

Whole backbones with random weights, all-linear, `whitened_gradient`, and eight batches, as many as CalibrateA takes.
The passes alone are timed in the same process: those of the adapted model with nothing observed. Then the statistics,
which are gathered during passes, and the A's that the rule draws from them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics, drawn_from
from asym_lightning.core.gradients import gradients_by
from benchmarks.cells import TARGETS, Cell
from benchmarks.machine import describe
from benchmarks.models import build_model, make_loss

CELLS = (
    Cell("vit-b", 12, None, 16, 196, "all-linear", 8, "eager"),
    Cell("roberta-base", 12, None, 16, 128, "all-linear", 8, "eager"),
)
RULE = "whitened_gradient"  # which needs all that the others need
NUM_BATCHES = 8
RESULTS = Path("benchmarks/results/calibration_time.md")


def time_calibration(cell: Cell) -> tuple[float, float, float]:
    """Seconds of the passes alone, of the passes with statistics, and of drawing."""
    model = build_model(cell)
    config = AdapterConfig(rank=cell.rank, targets=list(TARGETS[cell.targets]), scheme=f"hB_zero_A_{RULE}")
    inject_adapters(model, config, draw=False)
    losses = [make_loss(cell, torch.device("cpu"), seed=seed) for seed in range(NUM_BATCHES)]
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients_by(losses[0](model), trained)  # the first pass allocates
    started = time.perf_counter()
    for loss in losses:
        gradients_by(loss(model), trained)
    passes = time.perf_counter() - started
    started = time.perf_counter()
    statistics = dict(calibration_statistics(model, adapter_sites(model), losses, lambda loss: loss(model)))
    gathered = time.perf_counter() - started
    started = time.perf_counter()
    drawn_from(model, statistics.items())
    return passes, gathered, time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Time every cell, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_a.calibration_time")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    lines = [
        f"Measured on: {describe(torch.device('cpu'), options.threads)}.",
        "",
        "| model | passes alone, s | statistics besides, s | drawing, s | besides the passes, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for cell in CELLS:
        passes, gathered, drawing = time_calibration(cell)
        besides = gathered - passes
        lines.append(
            f"| {cell.model}, {NUM_BATCHES} x {cell.batch} x {cell.length} | {passes:.1f} | {besides:.1f} | "
            f"{drawing:.1f} | {besides + drawing:.1f} |"
        )
        print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
