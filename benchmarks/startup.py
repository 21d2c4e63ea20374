"""What start-up costs: until commands answer, drawing every A of a 7B model, SVD inits, saving and loading.

    python -m benchmarks.startup [--base ANOTHER_CHECKOUT] [--runs 5] [--only commands]

prints seconds on this machine: of the processor for commands, which run in processes of their own, else of the clock.
Those of commands, medians, are written to `results/startup.csv` and `.md`. That `fit` can take less than its imports
alone is no error: by itself Python looks at a million objects again and again while they are imported. The backbone of
the 7B rows is on the meta device, for no draw reads its weights; the SVD rows have weights with the power-law spectrum
of pretrained ones and the flat one of noise, the worst case.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, load_adapters, save_adapters
from asym_lightning.adapters.init.singular_vectors import singular_vectors
from benchmarks.command_start import measure_commands
from benchmarks.figures import figures_table, write_figures
from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results" / "startup.csv"


def llama_q_and_v(num_layers: int = 32, width: int = 4096, device: str = "meta") -> nn.Module:
    """The q and v projections of Llama-2-7B by their names."""

    def layer() -> nn.Module:
        projections = {n: nn.Linear(width, width, bias=False, device=device) for n in ("q_proj", "v_proj")}
        return nn.ModuleDict({"self_attn": nn.ModuleDict(projections)})

    return nn.ModuleDict({str(i): layer() for i in range(num_layers)})


def with_spectrum(size: int, power: float) -> torch.Tensor:
    """A (size, size) matrix whose k-th singular value is ``k ** -power``."""
    U, V = (torch.linalg.qr(torch.randn(size, size)).Q for _ in range(2))
    return U @ torch.diag(torch.arange(1, size + 1.0) ** -power) @ V


def main() -> None:
    """Print a line a measurement, and keep those of commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=Path, help="another checkout, whose commands run in turn with those here")
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: 5)")
    parser.add_argument("--only", choices=["commands", "adapters"], help="measure one of the two")
    options = parser.parse_args()
    if options.only != "adapters":
        figures = measure_commands(options.runs, options.base)
        write_figures(figures, RESULTS, describe(torch.device("cpu"), 1))
        head = f"# Start-up\n\nProcessor seconds by `python -m benchmarks.startup`, medians of {options.runs}.\n\n"
        RESULTS.with_suffix(".md").write_text(head + figures_table(RESULTS) + "\n")
    if options.only != "commands":
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        measure_adapters()


def measure_adapters() -> None:
    """Print one line a measurement of what building adapters costs."""
    config = AdapterConfig(rank=64, targets=["q", "v"], heads=[])
    model = llama_q_and_v()
    report("Llama-2-7B, q and v, rank 64: inject on the meta device", lambda: inject_adapters(model, config))
    adapters = adapters_by_name(model).values()
    report(f"Llama-2-7B, q and v, rank 64: draw all {len(adapters)} A", lambda: [a.draw_A() for a in adapters])

    for size, rank in ((768, 8), (1024, 16), (4096, 16)):
        for power, name in ((0.5, "power-law"), (0.0, "flat")):
            W = with_spectrum(size, power) if power else torch.randn(size, size)
            if size < 4096 or power:  # the full decomposition of 4096 takes minutes
                label = f"{rank} leading singular vectors, {size} x {size}, {name} spectrum"
                report(label, lambda W=W, rank=rank: singular_vectors(W, rank, side="V", last=False))  # type: ignore[misc]

    small = llama_q_and_v(num_layers=32, width=1024, device="cpu")
    inject_adapters(small, AdapterConfig(rank=16, targets=["q", "v"], heads=[]))
    with tempfile.TemporaryDirectory() as directory:
        for form, include_frozen in (("full", True), ("compact", False)):
            path = Path(directory, form)
            report(
                f"64 layers of 1024, rank 16: save, {form}",
                lambda p=path, i=include_frozen: save_adapters(small, p, include_frozen=i),  # type: ignore[misc]
            )
            size = (path / "adapter_model.safetensors").stat().st_size
            report(f"64 layers of 1024, rank 16: load, {form} ({size:,} bytes)", lambda p=path: load_adapters(small, p))  # type: ignore[misc]


def report(label: str, run: Callable[[], object]) -> None:
    """Run once and print the wall time."""
    start = time.perf_counter()
    run()
    print(f"{time.perf_counter() - start:8.2f} s  {label}", flush=True)


if __name__ == "__main__":
    main()
