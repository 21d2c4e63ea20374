"""Training data that go on where an interrupted epoch left off.

Lightning restores how many batches of an epoch are done, but a plain `DataLoader` starts over. A loader that has
`state_dict` and `load_state_dict` is asked for its place, so plain ones are wrapped to have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from asym_lightning.core.random_state import random_state, set_random_state


class ResumableLoader(DataLoader):
    """A `DataLoader` that can say where in an epoch it is and go there.

    Its state is the number of batches given out and the random state with which the epoch began. Going there starts the
    epoch again from that random state, which gives the same order and the same workers' seeds, and lets that many
    batches pass. It takes the time to load them.

    Example:
        >>> from types import SimpleNamespace
        >>> trainer = SimpleNamespace(num_training_batches=4)
        >>> loader = DataLoader(range(8), batch_size=2, shuffle=True)
        >>> ResumableLoader.take_over(loader, trainer)
        >>> batches = iter(loader)
        >>> _ = next(batches), next(batches)
        >>> state, third = loader.state_dict(), next(batches)
        >>> loader.load_state_dict(state)
        >>> bool((next(iter(loader)) == third).all())
        True
    """

    _trainer: Trainer
    _num_given: int
    _num_to_skip: int
    _start: dict[str, Any]

    @staticmethod
    def take_over(loader: DataLoader, trainer: Trainer) -> None:
        """Turn a plain loader into a resumable one, in place, so that all who hold it hold the resumable one.

        Args:
            loader: A `DataLoader`, of that class itself.
            trainer: Knows how many batches an epoch has.
        """
        loader.__class__ = ResumableLoader
        assert isinstance(loader, ResumableLoader)
        loader._trainer = trainer
        loader._num_given = loader._num_to_skip = 0
        loader._start = {}

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches of an epoch, or the rest of one."""
        now = random_state()
        skip, self._num_to_skip = self._num_to_skip, 0
        if skip:
            set_random_state(self._start)
        else:
            self._start = now
        batches = super().__iter__()
        for _ in range(skip):
            next(batches)
        if skip:
            set_random_state(now)
        self._num_given = skip
        for batch in batches:
            self._num_given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch were given out and how it began; after the last one, the next epoch's start."""
        is_done = self._num_given >= self._trainer.num_training_batches
        return {"num_given": 0 if is_done else self._num_given, "start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next epoch be the rest of the one that was interrupted."""
        self._num_given = self._num_to_skip = state["num_given"]
        self._start = state["start"]


def make_train_loaders_resumable(trainer: Trainer) -> None:
    """Let a Trainer's plain training loaders become resumable when it hands them to its strategy.

    Loaders without a length stay as they are, since Lightning reads ahead of them, and so do subclasses of
    `DataLoader`, which may have a state of their own. A second call does nothing.
    """
    strategy = trainer.strategy
    if getattr(strategy.process_dataloader, "makes_resumable", False):
        return
    process = strategy.process_dataloader

    def process_and_take_over(dataloader: object) -> object:
        processed = process(dataloader)
        if isinstance(processed, DataLoader) and trainer.training and _is_plain(processed):
            ResumableLoader.take_over(processed, trainer)
        return processed

    process_and_take_over.makes_resumable = True  # type: ignore[attr-defined]
    strategy.process_dataloader = process_and_take_over  # type: ignore[method-assign]


def _is_plain(loader: DataLoader) -> bool:
    if type(loader) not in (DataLoader, ResumableLoader):
        return False
    try:
        return len(loader) > 0
    except TypeError:  # an iterable dataset without a length
        return False
