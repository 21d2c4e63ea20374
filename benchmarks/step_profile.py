"""Where the time of an arm's step over the floor goes, by operator."""

from __future__ import annotations

import contextlib
import functools
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from asym_lightning.adapters.kernels.cpu.library import FUNCTIONS, c_library
from benchmarks.arms import ARMS, FLOOR, prepare
from benchmarks.cells import Cell
from benchmarks.measure import Racer, Settings, build_base
from benchmarks.models import make_loss

OUTSIDE = "python, autograd and dispatch"
# The first group with a matching part of the operator's name counts.
GROUPS = {
    "narrow products in C": ("kernel::dot", "kernel::outer"),
    "dropped entries in C": ("kernel::",),
    "optimizer": ("adam", "Optimizer", "lorafa"),
    "matrix products": ("mm", "gemm", "linear", "matmul", "einsum", "convolution"),
    "attention": ("attention", "softmax"),
    "random numbers and dropped entries": (
        "rand", "bernoulli", "dropout", "log", "cumsum", "index", "take", "gather", "scatter", "searchsorted",
        "masked_fill", "where", "drop",
    ),
    "copies": ("copy", "clone", "cat", "contiguous", "_to_copy", "fill", "zero"),
    "elementwise": ("add", "mul", "sub", "div", "gelu", "silu", "norm", "neg", "floor", "sum", "mean"),
}  # fmt: skip


def profile_arm(cell: Cell, name: str, settings: Settings, top: int = 15) -> str:
    """A table of groups and a table of operators, in milliseconds a step: arm, floor, difference.

    Times are the operators' own, on the GPU where there is one. What no operator accounts for is named too. The last
    line is the plain difference of median steps without a profiler, which slows small operators down.
    """
    base = build_base(cell, settings)
    loss = make_loss(cell, settings.device, seed=settings.seed)
    racers = {
        arm: Racer(
            prepare(ARMS[arm], base, cell, settings.dropout, compiles=cell.mode != "eager"), cell, loss, settings
        )
        for arm in (FLOOR, name)
    }
    for racer in racers.values():
        for _ in range(settings.warmup):
            racer.step()
    walls, counts = _profiled({arm: racer.step for arm, racer in racers.items()}, settings)
    plain: dict[str, list[float]] = {arm: [] for arm in racers}
    order, generator = list(racers), random.Random(settings.seed)
    for _ in range(settings.rounds):
        generator.shuffle(order)
        for arm in order:
            plain[arm].append(racers[arm].timed_step())
    medians = {arm: 1000 * statistics.median(steps) for arm, steps in plain.items()}
    for arm in racers:
        counts[arm][OUTSIDE] = walls[arm] - sum(counts[arm].values())
    groups = {arm: _grouped(counts[arm]) for arm in racers}
    return "\n\n".join(
        [
            f"{name} in [{cell}], ms a step",
            _table("group", groups[name], groups[FLOOR], len(GROUPS) + 2),
            _table("operator", counts[name], counts[FLOOR], top),
            f"without a profiler: {medians[name]:.2f} ms, floor {medians[FLOOR]:.2f} ms, "
            f"{medians[name] / medians[FLOOR]:.3f} of it",
        ]
    )


def _profiled(steps: dict[str, Callable[[], None]], settings: Settings) -> tuple[dict[str, float], dict[str, Counter]]:
    """Median wall time and every operator's median own time, in milliseconds a step."""
    is_cuda = settings.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    walls: dict[str, list[float]] = {arm: [] for arm in steps}
    seen: dict[str, dict[str, list[float]]] = {arm: {} for arm in steps}
    for _ in range(settings.rounds):
        for arm, step in steps.items():
            with _kernels_by_name(), profile(activities=activities, acc_events=True) as profiler:
                start = time.perf_counter()
                step()
                if is_cuda:
                    torch.cuda.synchronize()
                walls[arm].append(1000 * (time.perf_counter() - start))
            for event in profiler.key_averages():
                own = event.self_device_time_total if is_cuda else event.self_cpu_time_total
                seen[arm].setdefault(event.key, []).append(own / 1000)
    counts = {arm: Counter({key: statistics.median(t) for key, t in seen[arm].items()}) for arm in steps}
    return {arm: statistics.median(values) for arm, values in walls.items()}, counts


@contextlib.contextmanager
def _kernels_by_name() -> Iterator[None]:
    """Let the profiler see the C kernels, which are no operators of torch."""
    library = c_library()
    functions = {} if library is None else {name: getattr(library, name) for name in FUNCTIONS}
    try:
        for name, function in functions.items():
            setattr(library, name, functools.partial(_recorded, f"kernel::{name}", function))
        yield
    finally:
        for name, function in functions.items():
            setattr(library, name, function)


def _recorded(name: str, function: Callable[..., None], *arguments: object) -> None:
    with record_function(name):
        function(*arguments)


def group_of(operator: str) -> str:
    """The group of an operator.

    >>> group_of("aten::addmm"), group_of("aten::index_fill_"), group_of("aten::view")
    ('matrix products', 'random numbers and dropped entries', 'other')
    """
    if operator == OUTSIDE:
        return OUTSIDE
    return next((group for group, parts in GROUPS.items() if any(part in operator for part in parts)), "other")


def _grouped(counts: Counter) -> Counter:
    groups: Counter = Counter()
    for operator, milliseconds in counts.items():
        groups[group_of(operator)] += milliseconds
    return groups


def _table(what: str, arm: Counter, floor: Counter, top: int) -> str:
    """Largest differences first."""
    names = sorted({*arm, *floor}, key=lambda name: -abs(arm[name] - floor[name]))[:top]
    width = max(map(len, [what, *names]))
    lines = [f"{what:{width}}  {'arm':>9}  {'floor':>9}  {'more':>9}"]
    lines += [f"{n:{width}}  {arm[n]:9.2f}  {floor[n]:9.2f}  {arm[n] - floor[n]:+9.2f}" for n in names]
    return "\n".join(lines)
