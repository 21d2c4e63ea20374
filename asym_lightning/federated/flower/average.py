"""Flower's strategy: the mean of the clients' B and heads, weighted by their samples, is the mean of their updates."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterable
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from lightning.pytorch import LightningModule
from torch import Tensor

from asym_lightning.core.kinds import Count, Fraction, Positive
from asym_lightning.core.messages import listed
from asym_lightning.core.options import CheckedArguments
from asym_lightning.federated.exchange import adopt, average, difference, exchanged, identity, packed, unpacked
from asym_lightning.federated.flower.client import IDENTITY, NUM_EXAMPLES
from asym_lightning.federated.flower.records import array_record, record_of, weights_of


class FederatedAverage(CheckedArguments, Strategy):
    """Federated averaging of B and heads over one frozen A.

    A node is asked who it is before it gets any weights: one with another backbone, A, rank or other targets takes no
    part, and the log says in what it differs. A client that fails or doesn't answer in a round is left out of it, and
    what a client sends has to be a safetensors file of the right tensors with finite numbers. A round that nobody
    survives leaves the weights as they are.

    Args:
        module: The server's module, which starts with the weights that clients start with; :meth:`adopt` gives it
            those that were trained.
        fraction_train: Share of the nodes that train in a round; at least one does.
        fraction_evaluate: Share of the nodes that evaluate after it; with 0 none does.
        min_clients: Nodes to wait for before the first round.
        handshake_timeout: Seconds to wait for the answer of a node that is asked who it is, which first imports all
            and builds its module.

    Raises:
        ValueError: On construction, if the module has no adapters or trains A; in a round, if fewer nodes than
            `min_clients` have the module's backbone and A.
    """

    def __init__(
        self,
        module: LightningModule,
        *,
        fraction_train: Fraction = 1.0,
        fraction_evaluate: Fraction = 1.0,
        min_clients: Count = 2,
        handshake_timeout: Positive = 300.0,
    ) -> None:
        module.configure_model()
        self.parameters = exchanged(module)
        self.identity = identity(module)
        self.fraction_train, self.fraction_evaluate = fraction_train, fraction_evaluate
        self.min_clients, self.handshake_timeout = min_clients, handshake_timeout
        self._known: dict[int, str | None] = {}  # why a node is refused, or None

    @property
    def initial_arrays(self) -> ArrayRecord:
        """The module's weights, to start from."""
        return record_of(packed(self.parameters))

    def adopt(self, arrays: ArrayRecord) -> None:
        """Give the module the weights of a result."""
        adopt(self.parameters, unpacked(weights_of(arrays), self.parameters))

    # Flower's methods

    def summary(self) -> None:
        """Log what is exchanged."""
        log(INFO, "B and heads: %d tensors, %d bytes", len(self.parameters), len(packed(self.parameters)))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the weights to some of the nodes that passed the handshake."""
        nodes = self._nodes(grid, wait_for=self.min_clients if server_round == 1 else 1)
        content = self._content(server_round, arrays, config)
        return [
            grid.create_message(content, MessageType.TRAIN, node, str(server_round))
            for node in _share(nodes, self.fraction_train)
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the mean of the weights that came back whole, and of what was logged."""
        updates: list[tuple[dict[str, Tensor], float]] = []
        metrics: list[MetricRecord] = []
        for reply in replies:
            try:
                update = self._update(reply)
            except ValueError as error:
                log(WARNING, "Node %d is left out of round %d: %s", reply.metadata.src_node_id, server_round, error)
                continue
            updates.append(update)
            metrics.append(_metric_record(reply))
        if not updates:
            return None, None
        return record_of(packed(average(updates))), _mean(metrics)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the weights to some of the nodes that passed the handshake, to be validated."""
        if not self.fraction_evaluate:
            return []
        nodes = self._nodes(grid, wait_for=1)
        content = self._content(server_round, arrays, config)
        return [
            grid.create_message(content, MessageType.EVALUATE, node, str(server_round))
            for node in _share(nodes, self.fraction_evaluate)
        ]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the mean of what was measured."""
        metrics = [_metric_record(reply) for reply in replies if not reply.has_error()]
        return _mean(metrics) if metrics else None

    # Parts

    def _nodes(self, grid: Grid, wait_for: int) -> list[int]:
        """The nodes that are there and have this model."""
        while len(present := list(grid.get_node_ids())) < wait_for:
            time.sleep(1)
        self._shake_hands(grid, [node for node in present if node not in self._known])
        fitting = [node for node in present if self._known.get(node, "") is None]
        if len(fitting) < wait_for:
            reasons = [f"node {node} has {self._known.get(node) or 'not answered'}" for node in present]
            raise ValueError(
                f"{len(fitting)} of {len(present)} nodes can take part, and `min_clients` are {wait_for}: "
                f"{listed([r for r, node in zip(reasons, present, strict=True) if node not in fitting], 4)}."
            )
        return fitting

    def _shake_hands(self, grid: Grid, nodes: list[int]) -> None:
        if not nodes:
            return
        content = RecordDict({"config": ConfigRecord({})})
        asked = [grid.create_message(content, MessageType.QUERY, node, "handshake") for node in nodes]
        for reply in grid.send_and_receive(asked, timeout=self.handshake_timeout):
            node = reply.metadata.src_node_id
            if reply.has_error():
                log(WARNING, "Node %d does not say who it is: %s", node, reply.error.reason)
                continue  # it is asked again in the next round
            try:
                (config,) = reply.content.config_records.values()
                self._known[node] = difference(self.identity, json.loads(str(config[IDENTITY])))
            except (KeyError, ValueError):
                self._known[node] = "no description of its model"
            if self._known[node] is not None:
                log(WARNING, "Node %d takes no part: it has %s", node, self._known[node])

    def _content(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord) -> RecordDict:
        given = ConfigRecord({**config, "server-round": server_round, IDENTITY: json.dumps(self.identity)})
        return RecordDict({"arrays": arrays, "config": given})

    def _update(self, reply: Message) -> tuple[dict[str, Tensor], float]:
        """What a client sent, and the number of its samples.

        Raises:
            ValueError: It failed, or sent something else.
        """
        if reply.has_error():
            raise ValueError(str(reply.error.reason))
        tensors = unpacked(weights_of(array_record(reply.content)), self.parameters)
        num_samples = _metric_record(reply).get(NUM_EXAMPLES)
        if not isinstance(num_samples, (int, float)) or not 0 < num_samples < math.inf:
            raise ValueError(f"`{NUM_EXAMPLES}` must be a positive number, not {num_samples!r}.")
        return tensors, float(num_samples)


def _share(nodes: list[int], fraction: float) -> list[int]:
    return random.sample(nodes, max(1, int(len(nodes) * fraction)))


def _metric_record(reply: Message) -> MetricRecord:
    records = list(reply.content.metric_records.values())
    return records[0] if records else MetricRecord({})


def _mean(records: list[MetricRecord]) -> MetricRecord:
    """The mean of each number that all have, by samples, and how many clients it is of."""
    weights = [float(record[NUM_EXAMPLES]) for record in records]  # type: ignore[arg-type]
    shared = set.intersection(*[{*record} for record in records]) - {NUM_EXAMPLES}
    means = {
        name: sum(w * float(r[name]) for w, r in zip(weights, records, strict=True)) / sum(weights)  # type: ignore[arg-type]
        for name in sorted(shared)
    }
    return MetricRecord({**means, "num-clients": len(records)})
