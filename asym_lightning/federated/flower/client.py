"""Flower's client: it trains a module on its own data, and sends B and heads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from asym_lightning.federated.exchange import adopt, difference, exchanged, identity, packed, unpacked
from asym_lightning.federated.flower.records import array_record, record_of, weights_of
from asym_lightning.lifecycle.loops import train_loaders

IDENTITY, NUM_EXAMPLES = "identity", "num-examples"


@dataclass
class FederatedClient:
    """A module with an adapter, and the data that stay with it.

    Attributes:
        module: Whose B and heads train; every client has the same backbone, and the same A.
        data: A data module, with a `val_dataloader` if the client is to evaluate.
        trainer: Makes the Trainer of one round, whose `max_epochs` or `max_steps` say how far a client trains in it.
    """

    module: LightningModule
    data: Any
    trainer: Callable[[], Trainer]

    def __post_init__(self) -> None:
        self.module.configure_model()
        self.parameters = exchanged(self.module)

    def train(self, weights: bytes) -> tuple[bytes, dict[str, float]]:
        """Train from weights that were received.

        Returns:
            The weights that came of it, and the number of samples that they are of, with what was logged.
        """
        adopt(self.parameters, unpacked(weights, self.parameters))
        trainer = self.trainer()
        trainer.fit(self.module, self.data)
        num_samples = sum(len(loader.dataset) for loader in train_loaders(trainer))
        return packed(self.parameters), {**_numbers(trainer.callback_metrics), NUM_EXAMPLES: num_samples}

    def evaluate(self, weights: bytes) -> dict[str, float]:
        """Validate weights that were received."""
        adopt(self.parameters, unpacked(weights, self.parameters))
        trainer = self.trainer()
        trainer.validate(self.module, self.data, verbose=False)
        num_samples = sum(len(loader.dataset) for loader in CombinedLoader(trainer.val_dataloaders).flattened)
        return {**_numbers(trainer.callback_metrics), NUM_EXAMPLES: num_samples}


def client_app(make: Callable[[Context], FederatedClient]) -> ClientApp:
    """Flower's app of a client, which answers what a :class:`FederatedAverage` asks.

    Args:
        make: Makes the client for a message; the context says which part of the data it has, as `partition-id`.
    """
    app = ClientApp()

    @app.query()
    def say_who(message: Message, context: Context) -> Message:
        own = json.dumps(identity(make(context).module))
        return Message(RecordDict({"config": ConfigRecord({IDENTITY: own})}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = _fitting(make(context), message)
        weights, metrics = client.train(weights_of(array_record(message.content)))
        content = RecordDict({"arrays": record_of(weights), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = _fitting(make(context), message)
        metrics = client.evaluate(weights_of(array_record(message.content)))
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def _fitting(client: FederatedClient, message: Message) -> FederatedClient:
    """The client, unless the server has another model."""
    (config,) = message.content.config_records.values()
    reason = difference(identity(client.module), json.loads(str(config[IDENTITY])))
    if reason is not None:
        raise ValueError(f"The server has {reason}.")
    return client


def _numbers(metrics: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
