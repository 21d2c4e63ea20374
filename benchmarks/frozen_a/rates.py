"""By how much the best rate moves with rank, width, rule and factor, and what of that the geometry of A explains.

    pip install -e '.[bench,demo]'
    OMP_NUM_THREADS=1 python -m benchmarks.frozen_a.rates            # results/frozen_a_rates.md

Digits turned by 180 degrees, 100 steps of AdamW, ViTs of three widths, which are pretrained on upright digits at first.
One setting changes at a time. Rates are a factor of two apart; more are tried while the best is at an edge. The score
is the accuracy of validation and test images together: here it is the place of the optimum that is asked for, and not
its height. Runs are added to a csv file as they are done and are not repeated.

An Adam step moves each entry of B by about the rate, so an output of the layer by ``rate * scaling * sum_i |(A x)_i|``,
at most, and one of A by the mirror of that. What a setting makes of a step is measured on the training data before the
first step, and the best rate is given with and without it.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, reset_adapters
from asym_lightning.adapters.init.rule import Draw, InitRule, init_rule, register_init
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics, drawn_from, scale_to_random
from asym_lightning.data.images.digits import load_digits_splits
from benchmarks.frozen_a.arms import Arm, frozen
from benchmarks.frozen_a.runs import run
from benchmarks.frozen_a.tasks.digits import Digits
from benchmarks.frozen_a.tasks.task import FOLDER
from benchmarks.machine import describe
from benchmarks.run_file import append_row

RESULTS = Path(__file__).parents[1] / "results" / "frozen_a_rates.csv"
FROM_DATA = ("inputs", "gradient", "whitened_gradient")
RATES = (2.5e-3, 5e-3, 1e-2, 2e-2, 4e-2)
SEEDS = (0, 1)
WIDTH, RANK = 96, 8


class Matched(InitRule):
    """A rule's rows as `CalibrateA(keeps_rate=True)` scales them.

    Args:
        rule: That draws the rows.
    """

    needs_data = True

    def __init__(self, rule: InitRule) -> None:
        self.rule, self.name = rule, f"{rule.name}_matched"

    def rows(self, draw: Draw) -> Tensor:
        """As many rows as were asked for."""
        assert draw.statistics is not None
        A = self.rule.rows(draw)
        return A * scale_to_random(A, draw.statistics.inputs)


for name in FROM_DATA:
    register_init(Matched(init_rule(name)))


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Args:
        group: What changes within it: rank, width, rule or factor.
        width: Of the ViT.
        rank: Of the adapters.
        factor: That trains: ``B``, ``A`` or ``both``.
        rule: By which the frozen A was chosen.
    """

    group: str
    width: int = WIDTH
    rank: int = RANK
    factor: str = "B"
    rule: str = "rand"

    @property
    def name(self) -> str:
        """Without the group: a setting in two groups is run once."""
        return f"{self.factor}, {self.rule}, rank {self.rank}, width {self.width}"

    @property
    def scheme(self) -> str:
        """Of the adapter, with the rule that A is chosen by."""
        return {"B": f"hB_zero_A_{self.rule}", "A": "B_rand_hA_zero", "both": "hB_zero_hA_he"}[self.factor]

    @property
    def arm(self) -> Arm:
        """As in the comparison of rules."""
        if self.factor == "B":
            return frozen(self.name, self.rule, self.rank)
        return Arm(self.name, self.scheme, rank=self.rank)


SETTINGS = (
    *(Setting("rank", rank=rank) for rank in (2, 4, 8, 16, 32, 64)),
    *(Setting("width", width=width) for width in (48, 96, 192)),
    *(Setting("rule", rule=rule) for rule in ("rand", "coordinate", "block", *FROM_DATA)),
    *(Setting("rule, matched", rule=rule) for rule in ("rand", *(f"{rule}_matched" for rule in FROM_DATA))),
    *(Setting("factor", factor=factor) for factor in ("B", "A", "both")),
    *(Setting("rank, A", rank=rank, factor="A") for rank in (2, 8, 32)),
)


class WideDigits(Digits):
    """Digits at 180 degrees with a ViT of another width, in half of the steps.

    Args:
        width: Of the ViT.
    """

    max_epochs, num_steps = 10, 100

    def __init__(self, width: int) -> None:
        super().__init__(180)
        self.width = width

    def backbone(self) -> nn.Module:
        path = FOLDER / f"vit_digits_{self.width}.pt"
        model = timm.create_model(
            "vit_tiny_patch16_224", num_classes=10, img_size=8, patch_size=2, in_chans=1, embed_dim=self.width,
            depth=6, num_heads=self.width // 24,
        )  # fmt: skip
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(_pretrained(model).state_dict(), path)
        model.load_state_dict(torch.load(path, weights_only=True))
        model.reset_classifier(10)
        return model


def _pretrained(model: nn.Module) -> nn.Module:
    """Trained on upright digits, 20 epochs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, labels = load_digits_splits()["train"]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        for _ in range(20):
            for batch in torch.randperm(len(labels)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch] * 2 - 1), labels[batch]).backward()
                optimizer.step()
    return model


def step_size(setting: Setting) -> float:
    """Largest change of an output by a step at rate 1: root mean square over inputs, outputs and layers.

    A step of B moves output o by ``scaling * sum_i |(A x)_i|`` at most, one of A by
    ``scaling * |sum_i B_oi| * sum_j |x_j|``; both are taken in the mean, for Gaussian entries of a given second moment.
    """
    seed_everything(0, verbose=False)
    task = WideDigits(setting.width)
    model, data = task.backbone(), task.data(0)
    data.prepare_data()
    data.setup("fit")
    batches = list(data.train_dataloader())[:8]
    config = AdapterConfig(
        setting.scheme, rank=setting.rank, alpha=2 * setting.rank, targets=task.targets, share_a=True
    )
    inject_adapters(model, config, draw=not config.needs_data)
    loss = lambda batch: F.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    found = dict(calibration_statistics(model, adapter_sites(model), batches, loss))
    if config.needs_data:
        reset_adapters(model, statistics=drawn_from(model, found.items()))
    mean_modulus = math.sqrt(2 / math.pi)
    squares = []
    for adapter in adapters_by_name(model).values():
        S, A, B = (t.detach().double() for t in (found[adapter.A_key].inputs, adapter.A, adapter.B))
        if setting.factor == "A":
            change = B.sum(dim=1).square().mean().sqrt() * mean_modulus * S.diagonal().sqrt().sum()
        else:
            change = mean_modulus * torch.einsum("ij,jk,ik->i", A, S, A).sqrt().sum()
        squares.append(float(adapter.scaling * change) ** 2)
    return math.sqrt(statistics.fmean(squares))


def measure(setting: Setting, rows: list[dict[str, str]], path: Path) -> Iterator[str]:
    """Run what is missing of a setting."""

    def score(rate: float) -> float:
        of_rate = [r for r in rows if r["setting"] == setting.name and float(r["rate"]) == rate]
        for seed in SEEDS:
            if not any(int(r["seed"]) == seed for r in of_rate):
                done = run(WideDigits(setting.width), setting.arm, rate, seed)
                row = {key: str(value) for key, value in asdict(done).items() if key in ("rate", "seed", "val", "test")}
                rows.append({"setting": setting.name, **row})
                append_row(path, rows[-1])
                of_rate.append(rows[-1])
        return _score(of_rate)

    rates = list(RATES)
    scores = {}
    while True:
        for rate in rates:
            if rate not in scores:
                scores[rate] = score(rate)
                yield f"{setting.name}, rate {rate:g}: {scores[rate]:.3f}"
        best = max(scores, key=scores.__getitem__)
        if best == rates[-1]:
            rates.append(2 * best)
        elif best == rates[0]:
            rates.insert(0, best / 2)
        else:
            return


def _score(rows: Sequence[dict[str, str]]) -> float:
    return statistics.fmean((200 * float(r["val"]) + 400 * float(r["test"])) / 600 for r in rows)


def best_rate(setting: Setting, rows: Sequence[dict[str, str]]) -> tuple[float, float]:
    """The top of the parabola through the best rate's score and its neighbours', over the rate's logarithm; its score.

    The neighbours' noise moves the top by a part of the grid's factor of two.
    """
    by_rate: dict[float, list[dict[str, str]]] = {}
    for r in rows:
        if r["setting"] == setting.name:
            by_rate.setdefault(float(r["rate"]), []).append(r)
    scores = {rate: _score(of_rate) for rate, of_rate in sorted(by_rate.items())}
    rates, values = list(scores), list(scores.values())
    i = max(range(1, len(values) - 1), key=values.__getitem__)
    left, top, right = values[i - 1 : i + 2]
    bend = left - 2 * top + right
    return rates[i] * 2 ** (0.0 if bend == 0 else (left - right) / (2 * bend)), top


def results_text(rows: Sequence[dict[str, str]], machine: str) -> str:
    """A table a group: best rates, step sizes and their products."""
    lines = [
        "Best rates by setting, and their products with the measured size of a step at rate 1. `spread` is the largest "
        "over the smallest in a group: what a rate that serves the whole group is off by.",
        "",
        f"Machine: {machine}.",
    ]
    for group in dict.fromkeys(s.group for s in SETTINGS):
        lines += [
            "",
            f"## {group}",
            "",
            "| setting | score | best rate | step at rate 1 | product |",
            "|---|---:|---:|---:|---:|",
        ]
        rates, products = [], []
        for setting in (s for s in SETTINGS if s.group == group):
            rate, score = best_rate(setting, rows)
            step = step_size(setting)
            rates.append(rate)
            products.append(rate * step)
            lines.append(f"| {setting.name} | {score:.3f} | {rate:.4f} | {step:.2f} | {rate * step:.3f} |")
        lines.append(
            f"| **spread** | | **{max(rates) / min(rates):.1f}** | | **{max(products) / min(products):.1f}** |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    rows: list[dict[str, str]] = []
    if options.results.exists():
        with options.results.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for setting in SETTINGS:
        for line in measure(setting, rows, options.results):
            print(line, flush=True)
    text = results_text(rows, describe(torch.device("cpu"), torch.get_num_threads()))
    options.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
