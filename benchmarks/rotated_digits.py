"""Which factor to train: domain generalization on rotated digits, trained at one angle, tested at that and five others.

    pip install -e '.[bench,demo]'
    OMP_NUM_THREADS=1 python -m benchmarks.rotated_digits

About ten minutes on one core. The setting is configs/domainbed/rotated_digits.yaml: the tiny ViT, 180 steps of 32
images, trained at 75 degrees. Every arm runs at three or more learning rates and three seeds; its rate is the one with
the best mean of `val/accuracy`, which is in-domain alone, and each run is tested as it was at its best validation. The
seed decides head, adapter, split and order of the images. Runs are added to a csv file as they are done and are not
repeated.
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DomainBedDataModule, LoaderOptions
from asym_lightning.modules import ImageClassifier, WarmupSchedule
from benchmarks.run_file import append_row

RESULTS = Path(__file__).parent / "results" / "rotated_digits.csv"
ANGLES = ("0", "15", "30", "45", "60", "75")
TRAINED_AT = "75"
VAL_FRACTION = 0.25  # 60 of 240 images: a tenth would be too few to choose by
SEEDS = (0, 1, 2)
NUMBERS = ("val/accuracy", "test/train_accuracy", "test/in_domain_accuracy", "test/ood_accuracy", "test/train_test_gap")
COLUMNS = (*NUMBERS, *(f"test/{angle}/accuracy" for angle in ANGLES if angle != TRAINED_AT))


@dataclass(frozen=True)
class Arm:
    name: str
    scheme: str | None
    rank: int
    rates: tuple[float, ...]
    trains_all: bool = False


ARMS = (
    Arm("LoRA r8", "hB_zero_hA_he", 8, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
    Arm("B-only r8", "hB_zero_A_rand", 8, (3e-3, 1e-2, 3e-2)),
    Arm("B-only r16", "hB_zero_A_rand", 16, (1e-3, 3e-3, 1e-2, 3e-2)),
    Arm("A-only r8", "B_rand_hA_zero", 8, (3e-3, 1e-2, 3e-2)),
    Arm("full", None, 0, (3e-4, 1e-3, 3e-3), trains_all=True),
    Arm("head only", None, 0, (1e-2, 3e-2, 1e-1, 3e-1)),
)
Run = dict[str, str | float]
"""A row of the csv file: arm, rate, seed, trained, and the numbers in `COLUMNS`."""


def run(arm: Arm, rate: float, seed: int) -> Run:
    seed_everything(seed, verbose=False)
    adapter = arm.scheme and AdapterConfig(arm.scheme, rank=arm.rank, alpha=2 * arm.rank, seed=seed)
    module = ImageClassifier(
        "vit_digits",
        num_classes=10,
        adapter=adapter or None,
        train_backbone=arm.trains_all,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0),
        scheduler=WarmupSchedule(warmup=0.1, decay="cosine"),
    )
    data = DomainBedDataModule(
        "RotatedDigits",
        train_environments=[TRAINED_AT],
        trial_seed=seed,
        val_fraction=VAL_FRACTION,
        loader=LoaderOptions(),
    )
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/accuracy", mode="max", save_on_train_epoch_end=False)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=180,
            val_check_interval=30,
            check_val_every_n_epoch=None,
            callbacks=[best],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
        by_set = trainer.test(module, datamodule=data, ckpt_path=best.best_model_path, verbose=False)
    assert best.best_model_score is not None
    scores = {name: value for of_set in by_set for name, value in of_set.items()}
    scores["val/accuracy"] = float(best.best_model_score)
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return {
        "arm": arm.name,
        "rate": rate,
        "seed": seed,
        "trained": trained,
        **{name: round(scores[name], 4) for name in COLUMNS},
    }


def read_runs(path: Path) -> list[Run]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        return [{key: value if key == "arm" else float(value) for key, value in row.items()} for row in rows]


def at_best_rate(runs: list[Run]) -> Iterator[tuple[Arm, list[Run]]]:
    """Each arm with its runs at the rate that is best in validation."""
    for arm in ARMS:
        groups = [[r for r in runs if (r["arm"], r["rate"]) == (arm.name, rate)] for rate in arm.rates]
        groups = [group for group in groups if group]
        if groups:
            yield arm, max(groups, key=lambda group: mean(group, "val/accuracy"))


def mean(runs: list[Run], name: str) -> float:
    return statistics.fmean(float(r[name]) for r in runs)


def deviation(runs: list[Run], name: str) -> float:
    return statistics.stdev(float(r[name]) for r in runs) if len(runs) > 1 else 0.0


def table(runs: list[Run]) -> str:
    header = ("arm", "trained", "best rate", "validation", "training", "in-domain", "out of domain", "gap")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for arm, group in at_best_rate(runs):
        edge = " (edge)" if group[0]["rate"] in (arm.rates[0], arm.rates[-1]) else ""
        cells = [arm.name, f"{group[0]['trained']:,.0f}", f"{group[0]['rate']:g}{edge}"]
        cells += [f"{mean(group, name):.3f} ± {deviation(group, name):.3f}" for name in NUMBERS[:4]]
        lines.append(f"| {' | '.join([*cells, f'{mean(group, NUMBERS[4]):.3f}'])} |")
    note = f"Mean and deviation of {len(SEEDS)} seeds; trained at {TRAINED_AT} degrees, out of domain the other angles."
    return "\n".join([*lines, "", note])


def plot(runs: list[Run], path: Path) -> None:
    """Accuracy by angle, a line for each arm."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for arm, group in at_best_rate(runs):
        names = ["test/in_domain_accuracy" if a == TRAINED_AT else f"test/{a}/accuracy" for a in ANGLES]
        means, errors = [mean(group, name) for name in names], [deviation(group, name) for name in names]
        axes.errorbar([int(a) for a in ANGLES], means, errors, marker="o", capsize=2, label=arm.name)
    axes.set(xlabel="angle of the test images (degrees)", ylabel="accuracy", ylim=(0, 1))
    axes.set_xticks([int(a) for a in ANGLES])
    axes.set_title(f"Rotated digits, trained at {TRAINED_AT} degrees", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", help="names of arms (default: all)")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    runs = read_runs(options.results)
    done = {(r["arm"], r["rate"], r["seed"]) for r in runs}
    for seed in SEEDS:
        for arm in ARMS:
            for rate in arm.rates:
                if (options.arms is None or arm.name in options.arms) and (arm.name, rate, seed) not in done:
                    runs.append(run(arm, rate, seed))
                    append_row(options.results, runs[-1])
    options.results.with_suffix(".md").write_text(table(runs) + "\n")
    plot(runs, options.results.with_suffix(".svg"))
    print(table(runs))


if __name__ == "__main__":
    main()
