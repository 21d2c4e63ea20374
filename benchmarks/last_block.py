"""Does the theory say beforehand which factor to train? One layer of a real network, predicted and then trained.

    OMP_NUM_THREADS=1 python -m benchmarks.last_block

Digits turned upside down, once by their ten classes and once as odd or even, and the bundled ViT with an adapter of
rank 8 on one layer of its last block: attention's qkv, with one pair of factors, or the MLP's second layer. All before
that block is frozen, so it is computed once. For each of the four settings `asym_lightning.analysis.layer_statistics`
first says how much of the update of that layer's full fine-tuning the best B explains with A random, and the best A
with B random. Then both arms are trained, 200 steps, at four learning rates with three seeds. Four minutes on one core.
Writes `last_block.csv` and `last_block.md` to `benchmarks/results`.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.analysis.layer_statistics import LayerAdvice, advise_layers, layer_statistics
from asym_lightning.data import DigitsDataModule
from asym_lightning.modules.images.timm_backbone import create_timm_backbone

RESULTS = Path(__file__).parent / "results" / "last_block.csv"
RANK = 8
# Layers, with the learning rates that are tried.
LAYERS = {"mlp.fc2": (1e-2, 3e-2, 1e-1, 3e-1), "attn.qkv": (3e-3, 1e-2, 3e-2, 1e-1)}
SCHEMES = {"B": "hB_zero_A_rand", "A": "B_rand_hA_zero"}
FULL_RATES = (1e-1, 1e-3)  # of the head alone and of the whole layer
SEEDS = (0, 1, 2)
EPOCHS, BATCH = 20, 50

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Run:
    """One arm of a setting, trained."""

    num_classes: int
    layer: str
    factor: str
    rate: float
    seed: int
    validation: float
    test: float
    train_loss: float


class LastBlock(nn.Module):
    """The last block, the normalisation and a new head of the ViT; takes what comes out of the block before.

    Args:
        num_classes: Classes of the head.
        seed: Seed of the head.
    """

    def __init__(self, num_classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vit = create_timm_backbone("vit_digits", num_classes=num_classes).requires_grad_(False).eval()
        self.vit.get_classifier().requires_grad_(True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(self.vit.blocks[-1](tokens)))

    @torch.no_grad()
    def before(self, images: Tensor) -> Tensor:
        """What the last block is given."""
        tokens: list[Tensor] = []
        handle = self.vit.blocks[-1].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
        self.vit(images)
        handle.remove()
        return tokens[0]


def load_splits(num_classes: int) -> dict[str, Split]:
    data = DigitsDataModule(angles=[180], num_train=500)
    data.setup("fit")
    model = LastBlock(num_classes, seed=0)
    splits = {}
    for name in ("train", "val", "test"):
        images, labels = getattr(data, f"{name}_set").tensors
        splits[name] = model.before(images), labels if num_classes == 10 else labels % 2
    return splits


def train(model: LastBlock, split: Split, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    num_steps = EPOCHS * len(split[1]) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, num_steps, pct_start=0.1, cycle_momentum=False)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(split[1])).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(split[0][chosen]), split[1][chosen]).backward()
            optimizer.step()
            schedule.step()


def predict(num_classes: int, splits: dict[str, Split]) -> dict[str, LayerAdvice]:
    """What the theory says of each layer, from second moments under a trained head and the layer's full update."""
    head = LastBlock(num_classes, seed=0)
    train(head, splits["train"], FULL_RATES[0], seed=0)
    head.requires_grad_(True)
    names = [f"vit.blocks.5.{layer}" for layer in LAYERS]

    def loss(tokens: Tensor) -> Tensor:
        logits = head(tokens)
        labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        return F.cross_entropy(logits, labels, reduction="sum")

    moments = layer_statistics(head, names, splits["train"][0].split(BATCH), loss)
    updates = {}
    for name in names:
        full = LastBlock(num_classes, seed=0)
        weight = full.get_submodule(name).weight.requires_grad_(True)
        before = weight.detach().clone()
        train(full, splits["train"], FULL_RATES[1], seed=0)
        updates[name] = weight.detach() - before
    advice = advise_layers(updates, moments, RANK)
    return dict(zip(LAYERS, advice.values(), strict=True))


def run(num_classes: int, splits: dict[str, Split], layer: str, factor: str, rate: float, seed: int) -> Run:
    model = LastBlock(num_classes, seed)
    inject_adapters(
        model.vit, AdapterConfig(SCHEMES[factor], rank=RANK, alpha=2 * RANK, targets=[f"blocks.5.{layer}"], seed=seed)
    )
    train(model, splits["train"], rate, seed)
    with torch.no_grad():
        logits = {name: model(tokens) for name, (tokens, _) in splits.items()}
    accuracy = {name: (logits[name].argmax(-1) == splits[name][1]).float().mean().item() for name in splits}
    train_loss = F.cross_entropy(logits["train"], splits["train"][1]).item()
    return Run(num_classes, layer, factor, rate, seed, accuracy["val"], accuracy["test"], train_loss)


def runs_of(runs: list[Run], num_classes: int, layer: str, factor: str) -> Iterator[list[Run]]:
    """The runs of an arm, rate by rate."""
    for rate in LAYERS[layer]:
        yield [r for r in runs if (r.num_classes, r.layer, r.factor, r.rate) == (num_classes, layer, factor, rate)]


def row(predicted: LayerAdvice, runs: list[Run], num_classes: int, layer: str) -> str:
    gap = predicted.gap
    cells = [str(num_classes), layer, f"{gap.explained_by_B / gap.total:.2f}", f"{gap.explained_by_A / gap.total:.2f}"]
    losses, scores = [], {}
    for factor in SCHEMES:
        by_rate = list(runs_of(runs, num_classes, layer, factor))
        losses.append(min(statistics.mean(r.train_loss for r in of_rate) for of_rate in by_rate))
        scores[factor] = max(by_rate, key=lambda of_rate: statistics.mean(r.validation for r in of_rate))
    cells += [f"{loss:.4f}" for loss in losses]
    cells += [_spread([r.test for r in scores[factor]]) + f" ({scores[factor][0].rate:g})" for factor in SCHEMES]
    cells.append(_spread([b.test - a.test for b, a in zip(scores["B"], scores["A"], strict=True)]))
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def main() -> None:
    kinds = ("predicted", "training loss", "test")
    header = ["classes", "layer", *(f"{kind} {factor}" for kind in kinds for factor in SCHEMES), "test B - A"]
    lines = [f"| {' | '.join(header)} |", f"| ---: | --- |{' ---: |' * (len(header) - 2)}"]
    runs: list[Run] = []
    for num_classes in (2, 10):
        splits = load_splits(num_classes)
        predicted = predict(num_classes, splits)
        for layer, advice in predicted.items():
            print(f"{num_classes} classes, {layer}: train {advice.factor}, gap {advice.gap.gap:.3f}", flush=True)
            for factor in SCHEMES:
                for rate in LAYERS[layer]:
                    runs += [run(num_classes, splits, layer, factor, rate, seed) for seed in SEEDS]
            lines.append(row(advice, runs, num_classes, layer))
            print(lines[-1], flush=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Run)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in runs)
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
