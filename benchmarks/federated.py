"""Eight clients on digits at four angles, by Flower in this process: B and heads are exchanged, over one frozen A.

    python -m benchmarks.federated                       # writes benchmarks/results/federated.md

`benchmarks/federated.yaml` says all. `federated` is what the clients train together, from what each has; `alone` is the
mean of clients that train as many epochs on their own images and are tested at their own angle; `pooled` trains on all
images in one place, as many epochs. Test accuracy is the mean over the angles. Bytes a round are those of the
safetensors files that a client gets and sends: of B and heads, of A and B and heads as LoRA has them, of everything.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, trainable_parameters
from asym_lightning.data.images.digits import DigitsDataModule, DigitsSplit, load_digits_splits, rotated_dataset
from asym_lightning.federated.exchange import packed
from asym_lightning.modules import ImageClassifier
from benchmarks.machine import describe

CONFIG, OUTPUT = Path(__file__).with_suffix(".yaml"), Path(__file__).parent / "results" / "federated.md"
LORA = "hB_zero_hA_he"


class Federation(NamedTuple):
    """The config."""

    angles: list[float]
    clients_per_angle: int
    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    rank: int
    targets: list[str]

    @property
    def num_clients(self) -> int:
        return len(self.angles) * self.clients_per_angle

    def angle(self, client: int) -> float:
        return self.angles[client % len(self.angles)]


class ClientData(LightningDataModule):
    """The images that clients have, at their angles."""

    label_names = tuple(map(str, range(10)))

    def __init__(self, federation: Federation, clients: Sequence[int]) -> None:
        super().__init__()
        train, num_clients = load_digits_splits()["train"], federation.num_clients
        parts = []
        for client in clients:
            own = DigitsSplit(train.images[client::num_clients], train.labels[client::num_clients])
            parts.append(rotated_dataset(own, [federation.angle(client)]).tensors)
        self.dataset = TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        self.batch_size = federation.batch_size

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, self.batch_size, shuffle=True)


def build(federation: Federation, seed: int, scheme: str = "hB_zero_A_rand", **options: Any) -> ImageClassifier:
    """The module that everybody starts with."""
    torch.manual_seed(seed)
    adapter = AdapterConfig(scheme, rank=federation.rank, targets=federation.targets, share_a=True, seed=seed)
    optimizer = partial(torch.optim.AdamW, lr=federation.learning_rate, weight_decay=0.0)
    module = ImageClassifier(
        "vit_digits", num_classes=10, adapter=None if options else adapter, optimizer=optimizer, **options
    )
    module.configure_model()
    return module


def make_trainer(epochs: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def federated(federation: Federation, seed: int) -> tuple[float, int]:
    """Mean test accuracy of what all train together, and bytes that a client gets and sends in a round."""
    from asym_lightning.federated import FederatedAverage, FederatedClient, LocalGrid, client_app

    logging.getLogger("flwr").setLevel(logging.ERROR)  # it sets its own level when it is imported
    seed_everything(seed, verbose=False)

    @cache
    def client(number: int) -> FederatedClient:
        module = build(federation, seed)
        return FederatedClient(module, ClientData(federation, [number]), partial(make_trainer, federation.epochs))

    module = build(federation, seed)
    app = client_app(lambda context: client(int(context.node_config["partition-id"])))
    grid = LocalGrid(app, federation.num_clients)
    strategy = FederatedAverage(module, min_clients=federation.num_clients, fraction_evaluate=0.0)
    result = strategy.start(grid, strategy.initial_arrays, num_rounds=federation.rounds)
    strategy.adopt(result.arrays)
    accuracy = statistics.mean(_accuracy(module, angle) for angle in federation.angles)
    return accuracy, grid.num_bytes // (federation.rounds * federation.num_clients)


def trained(federation: Federation, clients: Sequence[int], angles: Sequence[float], seed: int) -> float:
    """Mean test accuracy of a module that is trained on the images of some clients."""
    seed_everything(seed, verbose=False)
    module = build(federation, seed)
    make_trainer(federation.rounds * federation.epochs).fit(module, ClientData(federation, clients))
    return statistics.mean(_accuracy(module, angle) for angle in angles)


@torch.no_grad()
def _accuracy(module: ImageClassifier, angle: float) -> float:
    data = DigitsDataModule(angles=[angle])
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    predicted: Tensor = module.eval()(images).argmax(1)
    module.train()
    return float((predicted == labels).float().mean())


def round_bytes(federation: Federation) -> dict[str, int]:
    """Bytes that a client gets and sends in a round, by what is exchanged."""
    modules = {
        "B and heads": build(federation, 0),
        "A, B and heads (LoRA)": build(federation, 0, LORA),
        "everything": build(federation, 0, train_backbone=True),
    }
    return {what: 2 * len(packed(dict(trainable_parameters(module)))) for what, module in modules.items()}


def page(accuracies: dict[str, list[float]], sizes: dict[str, int], federation: Federation, command: str) -> str:
    """The results as a page."""
    lines = [
        "# Federated training",
        "",
        f"`{command}`",
        "",
        f"{federation.num_clients} clients on digits at {len(federation.angles)} angles, {federation.rounds} rounds;",
        f"`benchmarks/federated.yaml` says the rest. {describe(torch.device('cpu'), 1)}.",
        "",
        "| trained | test accuracy, mean of the angles and seeds |",
        "|---|---|",
        *(f"| {name} | {statistics.mean(values):.3f} |" for name, values in accuracies.items()),
        "",
        "| exchanged | bytes a client gets and sends in a round |",
        "|---|---|",
        *(f"| {what} | {size:,} |" for what, size in sizes.items()),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federated", description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", type=Path, default=CONFIG, help="the federation")
    parser.add_argument("--rounds", type=int, help="rounds, in place of the config's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of A, the head and the order")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where to write the tables")
    options = parser.parse_args(arguments)
    federation = Federation(**yaml.safe_load(options.config.read_text()))
    if options.rounds:
        federation = federation._replace(rounds=options.rounds)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    sizes, clients = round_bytes(federation), range(federation.num_clients)
    accuracies: dict[str, list[float]] = {"federated": [], "alone": [], "pooled": []}
    for number, seed in enumerate(options.seeds, 1):
        accuracy, sent = federated(federation, seed)
        assert sent == sizes["B and heads"]
        accuracies["federated"].append(accuracy)
        alone = [trained(federation, [client], [federation.angle(client)], seed) for client in clients]
        accuracies["alone"].append(statistics.mean(alone))
        accuracies["pooled"].append(trained(federation, clients, federation.angles, seed))
        seeds = " ".join(map(str, options.seeds[:number]))
        command = f"python -m benchmarks.federated --rounds {federation.rounds} --seeds {seeds}"
        text = page(accuracies, sizes, federation, command)
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
