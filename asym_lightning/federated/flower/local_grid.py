"""Clients in this process, one after another: to try a federation, and for tests."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import DEFAULT_TTL, Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid


class LocalGrid(Grid):
    """A grid of clients that live in this process; nothing is sent anywhere, and no other package is needed.

    Args:
        app: The app of every client.
        num_clients: How many there are; their contexts say which one each is, as `partition-id`.

    Attributes:
        num_bytes: Bytes of all records of weights that were given to clients and back.
    """

    def __init__(self, app: ClientApp, num_clients: int) -> None:
        self.app = app
        self.num_bytes = 0
        self._contexts = {
            node: Context(
                run_id=0,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": num_clients},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_clients + 1)
        }

    def get_node_ids(self) -> Iterable[int]:
        """The clients' numbers, from 1."""
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Let each client answer; one that fails answers with an error, as a node of Flower does."""
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Message:
        self.num_bytes += _num_bytes(message)
        node = message.metadata.dst_node_id
        try:
            reply = self.app(message, self._contexts[node])
        except Exception as error:
            reply = Message(Error(code=0, reason=f"{type(error).__name__}: {error}"), reply_to=message)
        self.num_bytes += _num_bytes(reply)
        return reply

    # What Flower's base has beside, which no strategy here asks for.

    def set_run(self, run: object) -> None:
        """There is one run."""

    @property
    def run(self) -> object:
        """There is one run, of no description."""
        return None

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a client."""
        metadata = Metadata(
            run_id=0,
            message_id="",
            src_node_id=0,
            dst_node_id=dst_node_id,
            reply_to_message_id="",
            group_id=group_id,
            created_at=time.time(),
            ttl=DEFAULT_TTL if ttl is None else ttl,
            message_type=message_type,
        )
        return Message(metadata=metadata, content=content)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not here: clients answer at once."""
        raise NotImplementedError("A `LocalGrid` sends and receives in one: use `send_and_receive`.")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not here: clients answer at once."""
        raise NotImplementedError("A `LocalGrid` sends and receives in one: use `send_and_receive`.")


def _num_bytes(message: Message) -> int:
    if message.has_error():
        return 0
    return sum(len(array.data) for record in message.content.array_records.values() for array in record.values())
