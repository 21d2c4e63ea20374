"""Data that go on where an interrupted epoch left off.

Lightning restores how many batches of an epoch are done, but a plain `DataLoader` starts over. A loader that has
`state_dict` and `load_state_dict` is asked for its place, so plain ones are changed to have them.

torchdata's `StatefulDataLoader` is the field's part for this, and it would not do (0.11): it starts workers anew from
the seed of the epoch, so that what they draw in its rest (crops, flips) is what they drew in its first batches;
persistent workers draw something else from the next epoch on; and it can't be made of a loader that somebody has built
already. A user's own one is left as it is, and resumed runs restore it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader, IterableDataset, Sampler

from asym_lightning.core.private_names import WAYS_TO_ITERATE, keeps_workers, shared_sampler
from asym_lightning.core.random_state import random_state, set_random_state


class ResumableLoader(DataLoader):
    """A `DataLoader` that can say where in an epoch it is and go there.

    Its state is the number of batches given out and the random state with which the epoch began, generators of its own
    and of its samplers included. Going there starts the epoch again from that state, which gives the same order, and
    lets that many batches of indices pass; no data are loaded for it. What is drawn for a batch in a worker depends on
    the epoch's seed and the batch's number alone, so it is the same in a worker that starts in mid-epoch, or that has
    been at work in earlier epochs.

    A data set that keeps a random state of its own, beside the global ones, is not followed.

    Example:
        >>> loader = DataLoader(range(8), batch_size=2, shuffle=True)
        >>> ResumableLoader.take_over(loader)
        >>> batches = iter(loader)
        >>> _ = next(batches), next(batches)
        >>> state, third = loader.state_dict(), next(batches)
        >>> loader.load_state_dict(state)
        >>> bool((next(iter(loader)) == third).all())
        True
    """

    _epoch: Epoch

    @staticmethod
    def take_over(loader: DataLoader, process: int = 0) -> None:
        """Turn a plain loader into a resumable one, in place, so that all who hold it hold the resumable one.

        Args:
            loader: One that :func:`why_not_resumable` has nothing against.
            process: Number of this process among those that train together; their workers draw differently.
        """
        kind = type(loader)
        if not issubclass(kind, ResumableLoader):
            is_plain = kind is DataLoader
            loader.__class__ = ResumableLoader if is_plain else type(kind.__name__, (ResumableLoader, kind), {})
        assert isinstance(loader, ResumableLoader)
        loader._epoch = Epoch(loader, process)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches of an epoch, or the rest of one; nothing is drawn before the first is asked for."""
        return self._batches(*self._epoch.begin())

    def _batches(self, num_to_skip: int, is_resumed: bool) -> Iterator[Any]:
        epoch = self._epoch
        epoch.start_from_its_random_state(num_to_skip, is_resumed)
        if keeps_workers(self):  # new ones would be given a seed
            epoch.draw_seed()
        for batch in super().__iter__():
            epoch.num_given += 1
            yield batch

    @property
    def _index_sampler(self) -> EpochIndices:  # torch's name for what batches of indices come from
        return EpochIndices(super()._index_sampler, self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch were given out, of how many, and the random state it began with."""
        return {"num_given": self._epoch.num_given, "num_batches": len(self), "start": self._epoch.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next epoch be the rest of the one that was interrupted, once the random state is what it was then.

        Raises:
            ValueError: An epoch has another number of batches now.
        """
        if state["num_batches"] != len(self):
            raise ValueError(
                f"The checkpoint was written in the middle of an epoch of {state['num_batches']} batches, and now an "
                f"epoch has {len(self)}: resume it with the same data, `batch_size` and number of processes, or resume "
                "from a checkpoint of the end of an epoch."
            )
        self._epoch.resume(state["num_given"], state["start"])


class Epoch:
    """Where a loader is in its epoch; it holds no loader, for iterators, which hold it, must not keep theirs alive.

    Args:
        loader: Its generators and the number of its workers are looked at.
        process: See :meth:`ResumableLoader.take_over`.
    """

    def __init__(self, loader: DataLoader, process: int) -> None:
        self.process = process
        self.generator = loader.generator
        self.generators = generators_of(loader)
        self.has_workers = loader.num_workers > 0
        self.num_given = 0
        self.start: dict[str, Any] = {}
        """The random state in which the epoch began."""
        self._num_to_skip: int | None = None  # None begins an epoch, 0 begins it from a random state that it had
        self._num_skipped = 0
        self._is_resumed = False
        self._now: dict[str, Any] = {}

    def resume(self, num_given: int, start: dict[str, Any]) -> None:
        """Let the next epoch be the rest of one, after so many batches, that began in a random state."""
        self._num_to_skip, self.start = num_given, start

    def begin(self) -> tuple[int, bool]:
        """Begin an epoch; returns how many batches there are to skip in it, and whether it is the rest of one."""
        is_resumed = self._num_to_skip is not None
        self.num_given, self._num_to_skip = self._num_to_skip or 0, None
        return self.num_given, is_resumed

    def start_from_its_random_state(self, num_to_skip: int, is_resumed: bool) -> None:
        """Go back to where the epoch began, or note that it begins here."""
        self._num_skipped, self._is_resumed = num_to_skip, is_resumed
        self._now = {"global": random_state(), "generators": generator_states(self.generators)}
        if is_resumed:
            set_random_state(self.start["global"])
            set_generator_states(self.generators, self.start["generators"])
        else:
            self.start = self._now

    def without_skipped(self, indices: Any) -> Iterator[Any]:
        """What is left of all batches of indices in the epoch, ready for workers if there are any."""
        seed = 0
        for number, batch in enumerate(indices, 1):
            if number == 1 and self.has_workers:
                seed = self.draw_seed()  # after the sampler's draws, so that the order does not depend on workers
            if self._is_resumed and number == max(self._num_skipped, 1):
                set_random_state(self._now["global"])
                if not self.has_workers:  # which are ahead with indices: when these draw, saved states are ahead too
                    set_generator_states(self.generators, self._now["generators"])
            if number > self._num_skipped:
                yield IndicesForWorker(batch, (seed, self.process, number)) if self.has_workers else batch

    def draw_seed(self) -> int:
        """Draw from where the loader draws its workers' seeds."""
        return int(torch.empty((), dtype=torch.int64).random_(generator=self.generator).item())


class EpochIndices:
    """Batches of indices as the loader's own sampler gives them, from where the epoch is.

    Args:
        indices: The sampler, of batches as a rule.
        epoch: The place of its loader; persistent workers keep this object for all epochs.
    """

    def __init__(self, indices: Any, epoch: Epoch) -> None:
        self.indices = indices
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        return self.epoch.without_skipped(self.indices)


class IndicesForWorker:
    """Indices on their way to a worker, which seeds its generators as it unpickles them, and finds nothing else."""

    def __init__(self, indices: Any, entropy: tuple[int, ...]) -> None:
        self.indices = indices
        self.entropy = entropy

    def __reduce__(self) -> tuple[Any, ...]:
        return _seeded, (self.indices, self.entropy)


def _seeded(indices: Any, entropy: tuple[int, ...]) -> Any:
    words = [int(word) for word in np.random.SeedSequence(entropy).generate_state(6)]
    np.random.seed(words[:4])
    random.seed(words[4])
    torch.default_generator.manual_seed(words[5])
    return indices


def why_not_resumable(loader: object) -> str | None:
    """What keeps a loader from becoming resumable, as the rest of a sentence; None if nothing does."""
    if not isinstance(loader, DataLoader):
        return "is no `DataLoader`"
    if isinstance(loader.dataset, IterableDataset):
        return "reads an iterable data set, which can't be entered in the middle"
    if not isinstance(loader, ResumableLoader) and any(
        getattr(type(loader), way) is not getattr(DataLoader, way) for way in WAYS_TO_ITERATE
    ):
        return "iterates in a way of its own"
    if not getattr(loader, "in_order", True):
        return "gives out batches in the order in which they get ready (`in_order=False`)"
    try:
        len(loader)
    except (TypeError, NotImplementedError):  # of its sampler
        return "has no length"
    return None


def make_loaders_resumable(trainer: Trainer) -> None:
    """Let a Trainer's plain loaders become resumable when it hands them to its strategy in fit.

    Those of validation too: then it makes no difference to the random state that training goes on with whether their
    workers have been started already. A second call does nothing.
    """
    strategy = trainer.strategy
    if getattr(strategy.process_dataloader, "makes_resumable", False):
        return
    process = strategy.process_dataloader

    def process_and_take_over(dataloader: object) -> object:
        processed = process(dataloader)
        if trainer.state.fn == TrainerFn.FITTING and not _has_state(processed) and why_not_resumable(processed) is None:
            assert isinstance(processed, DataLoader)
            ResumableLoader.take_over(processed, trainer.global_rank)
        return processed

    process_and_take_over.makes_resumable = True  # type: ignore[attr-defined]
    strategy.process_dataloader = process_and_take_over  # type: ignore[method-assign]


def _has_state(loader: object) -> bool:
    return hasattr(loader, "state_dict") and not isinstance(loader, ResumableLoader)


def generators_of(loader: object) -> list[torch.Generator]:
    """The generators of a loader and its samplers, each once.

    >>> len(generators_of(DataLoader(range(8), shuffle=True, generator=torch.Generator())))
    1
    """
    found: dict[int, torch.Generator] = {}
    seen: set[int] = set()

    def look_into(holder: object) -> None:
        if id(holder) in seen:
            return
        seen.add(id(holder))
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            if isinstance(value, torch.Generator):
                found[id(value)] = value
            elif isinstance(value, Sampler):
                look_into(value)
            elif isinstance(wrapped := shared_sampler(value), Sampler):
                look_into(wrapped)

    look_into(loader)
    return list(found.values())


def generator_states(generators: list[torch.Generator]) -> list[torch.Tensor]:
    """Where generators are."""
    return [generator.get_state() for generator in generators]


def set_generator_states(generators: list[torch.Generator], states: list[torch.Tensor]) -> None:
    """Let generators be where others were; if there are not as many, nothing can be said of any."""
    if len(generators) == len(states):
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
