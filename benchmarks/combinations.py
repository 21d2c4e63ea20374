"""Combinations of adapters that share A, beside `peft`'s `add_weighted_adapter`: how far from exact, and how long.

    python -m benchmarks.combinations                      # writes benchmarks/results/combinations.md

Both combine the same directories. Error: the distance of the combined updates of all layers from the mean of the
adapters' updates, which is formed densely, over the length of that mean.
"""

from __future__ import annotations

import argparse
import copy
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters import adapter_layers, load_adapters, read_adapter, write_adapter
from asym_lightning.adapters.arithmetic import combined
from benchmarks.cells import Cell
from benchmarks.machine import describe
from benchmarks.many_adapters import write_adapters
from benchmarks.models import build_model

OUTPUT = Path(__file__).parent / "results" / "combinations.md"
CELL = Cell("llama-s", 2, None, 1, 1, "all-linear", 8, "eager")
# What is asked for: options of `combined`, and `combination_type` of `peft`.
METHODS: dict[str, tuple[dict[str, Any], str]] = {
    "mean": ({}, "linear"),
    "concatenated": ({"join": "concatenate"}, "cat"),
    "best of rank 8": ({"join": "project"}, "svd"),
}


class Row(NamedTuple):
    """A method: errors and seconds of both."""

    method: str
    error: float
    seconds: float
    peft: str
    peft_error: float
    peft_seconds: float


def measure(count: int) -> Iterator[Row]:
    """Combine adapters by every method."""
    import peft

    base = build_model(CELL).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        directories = write_adapters(base, CELL, Path(folder), count)
        adapters = [read_adapter(directory) for directory in directories.values()]
        updates = [_updates(base, directory) for directory in directories.values()]
        exact = {name: torch.stack([of_one[name] for of_one in updates]).mean(0) for name in updates[0]}
        first, *others = directories
        model: Any = peft.PeftModel.from_pretrained(copy.deepcopy(base), directories[first], adapter_name=first)
        for name in others:
            model.load_adapter(directories[name], adapter_name=name)
        for method, (options, theirs) in METHODS.items():
            found, seconds = _timed(functools.partial(combined, adapters, **options))
            write_adapter(found, Path(folder) / "combined")
            mean = {"adapters": list(directories), "weights": [1 / count] * count, "adapter_name": theirs}
            add = functools.partial(model.add_weighted_adapter, **mean, combination_type=theirs)
            _, peft_seconds = _timed(add)
            of_peft = {name: _of_peft(model, name, theirs) for name in exact}
            error = _error(_updates(base, Path(folder) / "combined"), exact)
            yield Row(method, error, seconds, theirs, _error(of_peft, exact), peft_seconds)


def _updates(base: nn.Module, directory: Path) -> dict[str, Tensor]:
    model = copy.deepcopy(base)
    load_adapters(model, directory)
    return {name: layer.delta_weight().detach().double() for name, layer in adapter_layers(model).items()}


def _of_peft(model: Any, name: str, adapter: str) -> Tensor:
    return model.base_model.model.get_submodule(name).get_delta_weight(adapter).detach().double()


def _error(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    distance = sum(float((found[name] - tensor).square().sum()) for name, tensor in exact.items())
    return (distance / sum(float(tensor.square().sum()) for tensor in exact.values())) ** 0.5


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def page(rows: Sequence[Row], count: int, command: str, machine: str) -> str:
    """The results as a page."""
    lines = [
        "# Adapter arithmetic",
        "",
        f"`{command}`",
        "",
        f"The mean of {count} adapters over one A, of rank 8 on all linear layers of a Llama of 2 blocks of width 512.",
        "Error: the distance from the mean of the updates, over its length. Seconds of the processor.",
        "",
        f"{machine}.",
        "",
        "| | error | s | `add_weighted_adapter` of `peft` | error | s |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        ours, theirs = f"{row.error:.1e} | {row.seconds:.2f}", f"{row.peft_error:.1e} | {row.peft_seconds:.2f}"
        lines.append(f"| {row.method} | {ours} | `{row.peft}` | {theirs} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.combinations", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=3, help="number of adapters")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = f"python -m benchmarks.combinations --count {options.count}"
    text = page(list(measure(options.count)), options.count, command, describe(torch.device("cpu"), 1))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
