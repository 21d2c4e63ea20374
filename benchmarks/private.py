"""Digits upside down with differential privacy: B alone by `PrivateTraining`, beside LoRA in Opacus' GradSampleModule.

    python -m benchmarks.private                         # writes benchmarks/results/private.md

Both adapt q, k and v of the bundled backbone with rank 8 and train the head, from the same Poisson samples' rate, noise
and norm, at each rate of a few; the table has each arm at the rate that is best on the validation images, whose choice
is not accounted for. Time is the process's own, of forward, backward, clipping, noise and the optimizer alone; memory
is the most that a step has at once, over weights and optimizer state, by torch's profiler on one batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters, trainable_parameters
from asym_lightning.analysis.sample_gradients import SampleGradients
from asym_lightning.data.images.digits import DigitsDataModule
from asym_lightning.modules.images.timm_backbone import create_timm_backbone
from asym_lightning.report.statistics import estimate
from benchmarks.machine import describe
from benchmarks.memory import peak_bytes

OUTPUT = Path(__file__).parent / "results" / "private.md"
OURS, OPACUS = "B alone, SampleGradients", "LoRA, Opacus' GradSampleModule"
RATES = {OURS: (3e-3, 1e-2, 3e-2), OPACUS: (1e-3, 3e-3, 1e-2)}
DELTA = 1e-4
MAX_NORM = 1.0


class Run(NamedTuple):
    """One arm at one rate, epsilon and seed: accuracies, milliseconds a step, and its bytes."""

    arm: str
    epsilon: float
    rate: float
    val: float
    test: float
    milliseconds: float
    peak: int


def measure(arm: str, epsilon: float, rate: float, seed: int, epochs: int) -> Run:
    """Train and evaluate one arm."""
    from opacus.accountants.utils import get_noise_multiplier
    from opacus.data_loader import DPDataLoader

    torch.manual_seed(seed)
    data = DigitsDataModule(num_train=None)
    data.setup("fit")
    loader = DPDataLoader.from_data_loader(data.train_dataloader())
    noise = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=DELTA, sample_rate=loader.sample_rate, steps=epochs * len(loader)
    )
    model = _model(arm, seed)
    options: dict[str, Any] = {
        "noise_multiplier": noise,
        "max_grad_norm": MAX_NORM,
        "expected_batch_size": len(data.train_set) * loader.sample_rate,
    }
    step = _step_of_ours(model, rate, options) if arm == OURS else _step_of_opacus(model, rate, options)
    model.train()
    times = []
    for _ in range(epochs):
        for images, labels in loader:
            start = time.process_time()
            step(images, labels)
            times.append(time.process_time() - start)
    val, test = (_accuracy(model, batches) for batches in (data.val_dataloader(), data.test_dataloader()))
    model.train()
    images, labels = next(iter(data.train_dataloader()))
    peak = peak_bytes(lambda: step(images, labels))
    return Run(arm, epsilon, rate, val, test, 1000 * statistics.median(times), peak)


def _model(arm: str, seed: int) -> nn.Module:
    model = create_timm_backbone("vit_digits", 10)
    if arm == OURS:
        inject_adapters(model, AdapterConfig(rank=8, targets=["q", "k", "v"], share_a=True, seed=seed))
        return model
    import peft

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["qkv"], modules_to_save=["head"])
    return peft.get_peft_model(model, config)


def _step_of_ours(model: nn.Module, rate: float, options: dict[str, Any]) -> Any:
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping

    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], rate)
    private = DPOptimizerFastGradientClipping(optimizer, **options)
    gradients = SampleGradients(model)

    def step(images: Tensor, labels: Tensor) -> None:
        private.zero_grad()
        with gradients.observed(len(labels)) as found:
            F.cross_entropy(model(images), labels).backward()
        weights = (MAX_NORM / (found.norms() + 1e-6)).clamp(max=1.0)
        for parameter, summed in found.weighted_sums(weights):
            parameter.grad = summed
        private.step()

    return step


def _step_of_opacus(model: nn.Module, rate: float, options: dict[str, Any]) -> Any:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    wrapped = GradSampleModule(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
    private = DPOptimizer(optimizer, **options)

    def step(images: Tensor, labels: Tensor) -> None:
        private.zero_grad()
        F.cross_entropy(wrapped(images), labels).backward()
        private.step()

    return step


@torch.no_grad()
def _accuracy(model: nn.Module, batches: Any) -> float:
    images, labels = next(iter(batches))
    predicted = model.eval()(images).argmax(1)
    return float((predicted == labels).float().mean())


def at_best_rate(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The seeds of each arm and epsilon at the rate that is best on validation images."""
    for epsilon in dict.fromkeys(run.epsilon for run in runs):
        for arm in dict.fromkeys(run.arm for run in runs):
            own = [run for run in runs if (run.arm, run.epsilon) == (arm, epsilon)]
            groups = [[run for run in own if run.rate == rate] for rate in dict.fromkeys(run.rate for run in own)]
            yield max(groups, key=lambda group: statistics.mean(run.val for run in group))


def page(runs: Sequence[Run], command: str, machine: str) -> str:
    """The results as a page."""
    lines = [
        "# Private training",
        "",
        f"`{command}`",
        "",
        f"Digits upside down, 1,197 images; delta {DELTA:g}, norms clipped to {MAX_NORM:g}; test accuracy, mean over",
        "seeds and its standard error, at the rate that is best on validation images; time of a step, the median; MB:",
        "the most that a step on one batch of 50 has at once, over weights and optimizer state.",
        "",
        f"{machine}.",
        "",
        "| epsilon | arm | rate | test accuracy | ms a step | MB a step |",
        "|---|---|---|---|---|---|",
    ]
    for group in at_best_rate(runs):
        first = group[0]
        step, peak = (statistics.mean(getattr(run, name) for run in group) for name in ("milliseconds", "peak"))
        test = estimate([run.test for run in group])
        cells = [
            first.arm,
            f"{first.rate:g}",
            f"{test.mean:.3f} ± {test.error:.3f}",
            f"{step:.1f}",
            f"{peak / 1e6:.1f}",
        ]
        lines.append(f"| {first.epsilon:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.private", description=__doc__.split("\n\n")[0])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 8.0], help="what may be spent")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of A, the head and the batches")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the table")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    runs = [
        measure(arm, epsilon, rate, seed, options.epochs)
        for epsilon in options.epsilons
        for seed in options.seeds
        for arm, rates in RATES.items()
        for rate in rates
    ]
    seeds = " ".join(map(str, options.seeds))
    epsilons = " ".join(f"{epsilon:g}" for epsilon in options.epsilons)
    command = f"python -m benchmarks.private --epsilons {epsilons} --epochs {options.epochs} --seeds {seeds}"
    text = page(runs, command, describe(torch.device("cpu"), 1))
    options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
