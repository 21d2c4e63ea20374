"""Many adapters over one A in one batch, beside one adapter and beside `peft`'s batches of several adapters.

    python -m benchmarks.many_adapters                   # writes benchmarks/results/many_adapters.md

Every arm computes one batch in each round, in an order drawn anew; a ratio to one adapter, injected as usual, is taken
in each round, and the table has its median. All arms read the same directories, and what they compute is compared. On
one thread the process's own time is taken, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asym_lightning.adapters import (
    AdapterConfig,
    AdapterStack,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    save_adapters,
)
from benchmarks.cells import Cell
from benchmarks.machine import describe
from benchmarks.models import SHAPES, build_model

OUTPUT = Path(__file__).parent / "results" / "many_adapters.md"
ROWS = 64
CELLS = {
    "ViT-S, 4 blocks, 50 tokens a row": Cell("vit-s", 4, None, ROWS, 49, "all-linear", 8, "eager"),
    "small Llama, 4 blocks, 32 tokens a row": Cell("llama-s", 4, None, ROWS, 32, "all-linear", 8, "eager"),
    "small Llama, 4 blocks, 16 new tokens": Cell("llama-s", 4, None, ROWS, 4, "all-linear", 8, "eager"),
}
NEW_TOKENS = 16
COUNTS = (1, 8, 64)
ONE = "one adapter"


class Row(NamedTuple):
    """One number of adapters in one cell: ratios to one adapter, and the largest difference of the two outputs."""

    cell: str
    num_adapters: int
    stack: float
    peft: float
    difference: float


def measure(name: str, counts: Sequence[int], rounds: int, clock: Callable[[], float]) -> Iterator[Row]:
    """All arms of one cell."""
    cell = CELLS[name]
    base = build_model(cell).eval().requires_grad_(False)
    inputs = _inputs(cell)
    with tempfile.TemporaryDirectory() as folder:
        directories = write_adapters(base, cell, Path(folder), max(counts))
        arms = _arms(base, inputs, directories, counts, generates="new tokens" in name)
    seconds, outputs = _race(arms, rounds, clock)
    for count in counts:
        stack, peft = (
            statistics.median(s / one for s, one in zip(seconds[arm, count], seconds[ONE, 1], strict=True))
            for arm in ("stack", "peft")
        )
        ours, theirs = outputs["stack", count], outputs["peft", count]
        yield Row(name, count, stack, peft, float((ours - theirs).abs().max() / theirs.abs().max()))


def _inputs(cell: Cell) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES[cell.model]
    if shape.family == "vit":
        side = 16 * round(cell.length**0.5)
        return {"x": torch.randn(cell.batch, 3, side, side, generator=generator)}
    return {"input_ids": torch.randint(2, shape.vocabulary, (cell.batch, cell.length), generator=generator)}


def write_adapters(base: nn.Module, cell: Cell, folder: Path, count: int) -> dict[str, Path]:
    """Write adapters of one A, with B's drawn at random, and return their directories by name."""
    model = copy.deepcopy(base)
    inject_adapters(model, AdapterConfig(rank=cell.rank, targets=[cell.targets], heads=[]))
    directories = {}
    for number in range(count):
        for adapter in adapters_by_name(model).values():
            nn.init.normal_(adapter.factor_B, std=0.05)
        directories[str(number)] = folder / str(number)
        save_adapters(model, directories[str(number)])
    return directories


def _arms(
    base: nn.Module, inputs: dict[str, Any], directories: dict[str, Path], counts: Sequence[int], *, generates: bool
) -> dict[tuple[str, int], Callable[[], Tensor]]:
    """What computes a batch, by arm and number of adapters."""
    import peft

    one, many = copy.deepcopy(base), copy.deepcopy(base)
    load_adapters(one, directories["0"])
    one.eval()
    stack = AdapterStack(many, directories)
    many.eval()
    first, *others = directories
    mixed: Any = peft.PeftModel.from_pretrained(copy.deepcopy(base), directories[first], adapter_name=first).eval()
    for name in others:
        mixed.load_adapter(directories[name], adapter_name=name)

    def output(model: Any, **names: Any) -> Tensor:
        if generates:
            options = {
                "max_new_tokens": NEW_TOKENS,
                "min_new_tokens": NEW_TOKENS,
                "do_sample": False,
                "pad_token_id": 0,
            }
            return model.generate(**inputs, **options, **names)
        result = model(**inputs, **names)
        return result if isinstance(result, Tensor) else result.logits

    arms: dict[tuple[str, int], Callable[[], Tensor]] = {(ONE, 1): lambda: output(one)}
    for count in counts:
        names = [str(row % count) for row in range(ROWS)]

        def by_stack(names: list[str] = names) -> Tensor:
            with stack.rows_use(names):
                return output(many)

        def by_peft(names: list[str] = names) -> Tensor:
            return output(mixed, adapter_names=names)

        arms["stack", count], arms["peft", count] = by_stack, by_peft
    return arms


def _race(
    arms: dict[tuple[str, int], Callable[[], Tensor]], rounds: int, clock: Callable[[], float]
) -> tuple[dict[tuple[str, int], list[float]], dict[tuple[str, int], Tensor]]:
    order, draw = list(arms), random.Random(0)
    seconds: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    outputs: dict[tuple[str, int], Tensor] = {}
    with torch.no_grad():
        for step in range(rounds + 1):
            draw.shuffle(order)
            for arm in order:
                start = clock()
                outputs[arm] = arms[arm]()
                if step:  # the first warms up
                    seconds[arm].append(clock() - start)
    return seconds, outputs


def table(rows: Sequence[Row], command: str, machine: str) -> str:
    """The results as a page."""
    lines = [
        "# Many adapters in one batch",
        "",
        f"`{command}`",
        "",
        f"A batch of {ROWS} rows, whose adapters take turns; B-only of rank 8 on all linear layers, without gradients.",
        "Time over that of one adapter for all rows, injected as usual: `AdapterStack`, which computes A x once and",
        "multiplies by B's in one batched product a layer, and `peft`'s `adapter_names`. Difference: the largest of",
        "their outputs, over the largest output; of new tokens, whose numbers are compared, any would be large.",
        "",
        f"{machine}.",
        "",
        "| cell | adapters in the batch | AdapterStack | peft, mixed batch | difference |",
        "|---|---|---|---|---|",
        *(
            f"| {row.cell} | {row.num_adapters} | {row.stack:.2f} | {row.peft:.2f} | {row.difference:.0e} |"
            for row in rows
        ),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_adapters", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="timed batches of each arm")
    parser.add_argument("--threads", type=int, default=1, help="cores to use; with more than one, time is the clock's")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), help="what to measure")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="numbers of adapters")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rows = [row for name in options.cells for row in measure(name, options.counts, options.rounds, clock)]
    command = f"python -m benchmarks.many_adapters --threads {options.threads} --rounds {options.rounds}"
    page = table(rows, command, describe(torch.device("cpu"), options.threads))
    options.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
