"""Rounds over clients in this process: equal to the pooled computation, robust to clients that fail or don't fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, inject_adapters
from tests.callbacks.foreign import trainer

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from lightning.pytorch import LightningDataModule, LightningModule

from asym_lightning.federated import FederatedAverage, FederatedClient, LocalGrid, client_app
from asym_lightning.federated.exchange import exchanged

SIZES = (6, 10, 4)


class Module(LightningModule):
    """A layer, an adapter and a head, trained by SGD."""

    def __init__(self, seed: int = 0, **adapter) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        inject_adapters(self, AdapterConfig(**{"rank": 2, "targets": ["net"], "heads": ["head"], **adapter}))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.head(torch.tanh(self.net(x))), y)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.5)


def part(number):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(SIZES[number], 6, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def make_client(number, path, **options):
    """It takes one step, on all that it has."""
    data = DataLoader(part(number), batch_size=SIZES[number])
    return FederatedClient(Module(**options), data, lambda: trainer(path, max_steps=1))


def federation(path, make=make_client, **options):
    app = client_app(lambda context: make(context.node_config["partition-id"], path))
    strategy = FederatedAverage(Module(), **{"min_clients": 3, "fraction_evaluate": 0.0, **options})
    return LocalGrid(app, len(SIZES)), strategy


def test_a_round_is_a_step_on_the_pooled_data(tmp_path):
    grid, strategy = federation(tmp_path)
    result = strategy.start(grid, strategy.initial_arrays, num_rounds=2)
    strategy.adopt(result.arrays)
    pooled = Module()
    optimizer = pooled.configure_optimizers()
    x, y = (torch.cat(tensors) for tensors in zip(*(part(n).tensors for n in range(3)), strict=True))
    for _ in range(2):
        optimizer.zero_grad()
        pooled.training_step((x, y), 0).backward()
        optimizer.step()
    own = exchanged(pooled)
    for name, parameter in strategy.parameters.items():
        torch.testing.assert_close(parameter, own[name], rtol=1e-6, atol=1e-6)
        assert parameter.any()
    assert grid.num_bytes == 2 * 3 * 2 * len(strategy.initial_arrays["weights"].data)
    assert result.train_metrics_clientapp[2]["num-clients"] == 3


def test_a_client_that_dies_in_a_round_does_not_end_the_run(tmp_path):
    rounds = []

    class Dying(FederatedClient):
        def train(self, weights):
            rounds.append(1)
            if len(rounds) in (2, 4, 5, 6):  # one of the first round, all of the second
                raise ConnectionError("gone")
            return super().train(weights)

    def make(number, path):
        client = make_client(number, path)
        return Dying(client.module, client.data, client.trainer)

    grid, strategy = federation(tmp_path, make)
    result = strategy.start(grid, strategy.initial_arrays, num_rounds=3)
    counts = {number: metrics["num-clients"] for number, metrics in result.train_metrics_clientapp.items()}
    assert counts == {1: 2, 3: 3}


def test_a_node_with_another_backbone_is_refused_at_the_handshake(tmp_path, caplog):
    def make(number, path):
        return make_client(number, path, seed=int(number == 1))

    grid, strategy = federation(tmp_path, make, min_clients=2)
    result = strategy.start(grid, strategy.initial_arrays, num_rounds=1)
    assert result.train_metrics_clientapp[1]["num-clients"] == 2
    grid, strategy = federation(tmp_path, make)
    with pytest.raises(ValueError, match=r"2 of 3 nodes can take part, .* are 3: node 2 has another backbone"):
        strategy.start(grid, strategy.initial_arrays, num_rounds=1)
    assert grid.num_bytes == 0


def test_a_client_refuses_a_server_with_another_A(tmp_path):
    app = client_app(lambda context: make_client(0, tmp_path))
    grid = LocalGrid(app, 1)
    strategy = FederatedAverage(Module(scheme="hB_zero_A_coordinate"), min_clients=1)
    with pytest.raises(ValueError, match=r"has another A of `net.all`"):
        strategy.start(grid, strategy.initial_arrays, num_rounds=1)
    strategy._known[1] = None  # as if it had lied
    (reply,) = grid.send_and_receive(strategy.configure_train(1, strategy.initial_arrays, ConfigRecord({}), grid))
    assert "The server has another A of `net.all`" in reply.error.reason


def test_what_a_client_sends_has_to_be_weights(tmp_path):
    grid, strategy = federation(tmp_path)
    first, second, third = strategy.configure_train(1, strategy.initial_arrays, ConfigRecord({}), grid)
    own = strategy.initial_arrays
    pickled = ArrayRecord({"weights": Array(dtype="uint8", shape=(1,), stype="pickle", data=b"x")})
    replies = [
        Message(RecordDict({"a": pickled, "m": MetricRecord({"num-examples": 1})}), reply_to=first),
        Message(RecordDict({"a": own, "m": MetricRecord({"num-examples": -1})}), reply_to=second),
        Message(RecordDict({"a": own, "m": MetricRecord({"num-examples": 2})}), reply_to=third),
    ]
    arrays, metrics = strategy.aggregate_train(1, replies)
    assert metrics["num-clients"] == 1 and arrays["weights"].data == own["weights"].data


def test_clients_evaluate_what_was_trained(tmp_path):
    class Data(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(part(1), batch_size=5)

        def val_dataloader(self):
            return DataLoader(part(0), batch_size=2)

    def make(number, path):
        return FederatedClient(Module(), Data(), lambda: trainer(path, max_steps=1))

    grid, strategy = federation(tmp_path, make, fraction_evaluate=1.0)
    result = strategy.start(grid, strategy.initial_arrays, num_rounds=1)
    strategy.adopt(result.arrays)
    module = Module()
    for name, parameter in exchanged(module).items():
        parameter.data.copy_(strategy.parameters[name])
    found = result.evaluate_metrics_clientapp[1]
    assert found["val/loss"] == pytest.approx(float(module.training_step(part(0).tensors, 0)))
    assert found["num-clients"] == 3
