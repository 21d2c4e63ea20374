"""Run all arms of a cell interleaved in this process and measure them."""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.arithmetic import Arithmetic
from benchmarks.arms import Arm, Contender, adapted_names, file_bytes, make_optimizer, missing_peer, prepare
from benchmarks.cells import MODES, Cell
from benchmarks.machine import describe
from benchmarks.memory import TEMPORARIES, Budget, parameter_bytes, saved_bytes, tensor_bytes
from benchmarks.models import Loss, build_model, make_loss
from benchmarks.results import Row

# Gradient and AdamW's two moments, for every trained number.
COPIES_TO_TRAIN = 3
# Side of the square matrices whose product tells how fast the machine multiplies.
LARGE_PRODUCT = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Settings:
    """What is the same for all cells of a run.

    Attributes:
        device: Where to run.
        precision: ``32``, ``bf16-true`` or ``bf16-mixed``.
        threads: Cores to use.
        dropout: Probability for the arms that have dropout.
        rounds: Timed steps of each arm.
        warmup: Steps before them.
        fused: Use the fused AdamW.
        counts_cpu_time: Time steps by the process's CPU time, for one thread on a machine that does other work too.
        seed: Of weights, inputs and the order of the arms.
        memory_limit: Bytes that a run may take; ``None`` asks the machine.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "32"
    threads: int = 2
    dropout: float = 0.05
    rounds: int = 11
    warmup: int = 2
    fused: bool = True
    counts_cpu_time: bool = False
    seed: int = 0
    memory_limit: int | None = None


def measure_cell(cell: Cell, arms: Sequence[Arm], settings: Settings, log: Callable[[str], None] = print) -> list[Row]:
    """One row an arm; an arm that can't be run has its reason in the row and in one line of the log."""
    rows = {arm.name: _empty_row(cell, arm, settings) for arm in arms}

    def skip(arm: Arm, reason: str) -> None:
        rows[arm.name].skipped = reason
        log(f"skipped {arm.name} in [{cell}]: {reason}")

    budget = Budget(settings.device, settings.memory_limit)
    shortage = budget.shortage(_weight_bytes(cell, settings))
    if shortage:
        for arm in arms:
            skip(arm, shortage)
        return list(rows.values())
    base = build_base(cell, settings)
    budget.reserve(parameter_bytes(base), exists=True)
    loss = make_loss(cell, settings.device, seed=settings.seed)
    torch.compiler.reset()
    names = adapted_names(base, cell)
    racers: list[Racer] = []
    for arm in arms:
        contender = _try_to_prepare(arm, base, cell, settings, budget, skip)
        if contender is not None:
            racers.append(Racer(contender, cell, loss, settings))
    _race(racers, rows, settings)
    _count(racers, rows, names)
    return list(rows.values())


def build_base(cell: Cell, settings: Settings) -> nn.Module:
    """The frozen backbone that all arms start from, on the run's device and in its precision."""
    with _defaults(settings):
        return build_model(cell, settings.seed).requires_grad_(False)


class Racer:
    """A contender with its optimizer and its step."""

    def __init__(self, contender: Contender, cell: Cell, loss: Loss, settings: Settings) -> None:
        self.contender, self.loss, self.settings = contender, loss, settings
        self.optimizer = contender.optimizer = make_optimizer(contender, cell, fused=settings.fused)
        how = MODES[cell.mode]
        self.forward = contender.model
        if dist.is_initialized() and contender.trainable:
            self.forward = DistributedDataParallel(contender.model)
        if how:
            self.forward = torch.compile(self.forward, mode=how)

    def compute_loss(self, model: nn.Module | None = None) -> torch.Tensor:
        """The forward pass in the run's precision, of another model if one is given."""
        with autocast(self.settings):
            return self.loss(model or self.forward)

    def step(self) -> None:
        """What every training step does; the floor has nothing to update."""
        (self.optimizer or self.contender.model).zero_grad()
        self.compute_loss().backward()
        if self.optimizer:
            self.optimizer.step()

    def timed_step(self) -> float:
        """Seconds that a step takes, with nothing left in the GPU's queue before or after it."""
        return _timed(self.step, self.settings)

    def peak_bytes(self) -> int | None:
        """Of one step, with the adapter and the optimizer's state, without frozen weights and other arms."""
        device = self.settings.device
        if device.type != "cuda":
            return None
        self.contender.model.zero_grad()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.step()
        own = tensor_bytes(dict(self.optimizer.state)) if self.optimizer else 0
        added = [p for name, p in self.contender.model.named_parameters() if "factor_" in name or "lora_" in name]
        peak = torch.cuda.max_memory_allocated(device) - before + own + sum(p.nbytes for p in added)
        self.contender.model.zero_grad()
        return peak

    def num_kernels(self) -> int | None:
        """Kernels of one step on a GPU; on a CPU operators, which are about as many, unless they are compiled."""
        if self.settings.device.type == "cuda":
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                self.step()
                _wait(self.settings)
            return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())
        if self.forward is not self.contender.model:
            return None
        with _Operators() as operators:
            self.step()
        return operators.count


class _Operators(TorchDispatchMode):
    """Counts operators, without the lines that torch's profiler prints where there is no GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def autocast(settings: Settings) -> torch.autocast:
    """The context that the precision asks for."""
    return torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed")


def _timed(run: Callable[[], object], settings: Settings) -> float:
    clock = time.process_time if settings.counts_cpu_time else time.perf_counter
    _wait(settings)
    start = clock()
    run()
    _wait(settings)
    return clock() - start


def _wait(settings: Settings) -> None:
    if settings.device.type == "cuda":
        torch.cuda.synchronize(settings.device)


def _race(racers: Sequence[Racer], rows: dict[str, Row], settings: Settings) -> None:
    for racer in racers:
        row = rows[racer.contender.arm.name]
        row.first_step_seconds = racer.timed_step()
        for _ in range(settings.warmup - 1):
            racer.step()
    gc.collect()
    order, generator = list(racers), random.Random(settings.seed)
    steps: dict[str, list[float]] = {racer.contender.arm.name: [] for racer in racers}
    with _defaults(settings):
        side = LARGE_PRODUCT[settings.device.type]
        large = torch.ones(side, side)
    product_seconds = []
    for _ in range(settings.rounds):
        product_seconds.append(_timed(lambda: large @ large, settings))
        generator.shuffle(order)
        for racer in order:
            steps[racer.contender.arm.name].append(racer.timed_step())
    for racer in racers:
        contender = racer.contender
        row = rows[contender.arm.name]
        row.matmul_speed = 2 * side**3 / median(product_seconds)
        # To the microsecond, as the csv keeps them: a table made from it anew is the same.
        row.step_seconds = tuple(round(step, 6) for step in steps[contender.arm.name])
        row.trainable = sum(p.numel() for p in contender.trainable)
        row.saved_bytes = saved_bytes(racer.compute_loss, contender.model.parameters())
        row.peak_bytes = racer.peak_bytes()
        row.kernels = racer.num_kernels()
        row.optimizer_bytes = tensor_bytes(dict(racer.optimizer.state)) if racer.optimizer else 0
        row.file_bytes = file_bytes(contender)
        row.compact_bytes = file_bytes(contender, compact=contender.arm.freezes_A)
        row.inject_seconds = contender.inject_seconds


def _count(racers: Sequence[Racer], rows: dict[str, Row], names: Sequence[str]) -> None:
    """Adapted layers, and what a perfect program would do in them."""
    for racer in racers:
        rows[racer.contender.arm.name].layers = len(names)
    floor = next((racer for racer in racers if racer.contender.arm.kind == "floor"), None)
    if floor is None:
        return
    arithmetic = Arithmetic(floor.contender.model, names, floor.compute_loss)
    for racer in racers:
        row, need = rows[racer.contender.arm.name], arithmetic.of(racer.contender)
        if need is not None:
            row.flops, row.needed_bytes = need.flops, need.kept_bytes


def _try_to_prepare(
    arm: Arm, base: nn.Module, cell: Cell, settings: Settings, budget: Budget, skip: Callable[[Arm, str], None]
) -> Contender | None:
    own_weights = parameter_bytes(base) if arm.kind == "full" else 0
    reason = missing_peer(arm) or budget.shortage((1 + COPIES_TO_TRAIN) * own_weights)
    if reason:
        skip(arm, reason)
        return None
    try:
        contender = prepare(arm, base, cell, settings.dropout, compiles=cell.mode != "eager")
        kept = _predict_saved_bytes(contender, cell, settings)
    except ValueError as error:
        if arm.kind != "ours":
            raise
        # A rank that a layer doesn't allow, or a forced path that shape, dtype or dropout doesn't.
        skip(arm, str(error))
        return None
    to_train = COPIES_TO_TRAIN * sum(p.nbytes for p in contender.trainable)
    reason = budget.shortage(to_train, TEMPORARIES * kept)
    if reason:
        skip(arm, reason)
        return None
    budget.reserve(to_train)
    budget.reserve(own_weights, exists=True)
    return contender


def _predict_saved_bytes(contender: Contender, cell: Cell, settings: Settings) -> int:
    """What a step will keep, from one example: everything that is kept grows with the batch."""
    one = make_loss(cell, settings.device, batch=1, seed=settings.seed)

    def run() -> torch.Tensor:
        with autocast(settings):
            return one(contender.model)

    return cell.batch * saved_bytes(run, contender.model.parameters())


def _weight_bytes(cell: Cell, settings: Settings) -> int:
    with _defaults(settings, torch.device("meta")):
        return parameter_bytes(build_model(cell))


@contextlib.contextmanager
def _defaults(settings: Settings, device: torch.device | None = None) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if settings.precision == "bf16-true" else torch.float32)
    try:
        with device or settings.device:
            yield
    finally:
        torch.set_default_dtype(before)


def _empty_row(cell: Cell, arm: Arm, settings: Settings) -> Row:
    return Row(
        **vars(cell),
        device=settings.device.type,
        precision=settings.precision,
        threads=settings.threads,
        arm=arm.name,
        dropout=settings.dropout if arm.has_dropout else 0.0,
        machine=describe(settings.device, settings.threads) + ("; CPU time" if settings.counts_cpu_time else ""),
    )
