"""Loaders that go on in mid-epoch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from asym_lightning.core.random_state import random_state, set_random_state
from asym_lightning.lifecycle.resumable_loader import (
    ResumableLoader,
    generator_states,
    generators_of,
    set_generator_states,
    why_not_resumable,
)
from tests.lifecycle.runs import Noisy


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


ORDERS = {
    "shuffled": lambda: {"shuffle": True},
    "by a generator": lambda: {"shuffle": True, "generator": generator()},
    "weighted": lambda: {"sampler": WeightedRandomSampler(torch.arange(1.0, 21.0), 20, generator=generator())},
    "with replacement": lambda: {"sampler": RandomSampler(Noisy(), replacement=True, generator=generator())},
    "subset": lambda: {"sampler": SubsetRandomSampler(range(20))},
}


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make(order: str, **options) -> DataLoader:
    loader = DataLoader(Noisy(), batch_size=4, **ORDERS[order](), **options)
    ResumableLoader.take_over(loader)
    return loader


def is_same(found: list, expected: list) -> bool:
    return len(found) == len(expected) and all(torch.equal(f[0], e[0]) for f, e in zip(found, expected, strict=True))


WORKERS = [{}, {"num_workers": 1}, {"num_workers": 2, "persistent_workers": True}]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("workers", WORKERS, ids=["none", "one", "persistent"])
def test_the_rest_of_an_epoch_and_the_next_are_the_same_in_order_and_in_what_is_drawn_for_rows(order, workers):
    seed_all(0)
    loader = make(order, **workers)
    list(loader)  # an epoch after which persistent workers have drawn something
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    state, now = loader.state_dict(), random_state()
    generators = generator_states(generators_of(loader))
    rest, following = list(batches), list(loader)

    seed_all(99)
    loader = make(order, **workers)
    set_random_state(now)
    set_generator_states(generators_of(loader), generators)
    loader.load_state_dict(state)
    assert is_same(list(loader), rest)
    assert is_same(list(loader), following)


def test_workers_draw_something_else_in_every_batch_epoch_and_process():
    loader = DataLoader(Noisy(8), batch_size=4, num_workers=2)
    rows = Noisy(8).x
    noises = []
    for process in (0, 1):
        seed_all(0)
        ResumableLoader.take_over(loader, process)
        noises += [x - rows[4 * i : 4 * i + 4] for _ in range(2) for i, (x, _) in enumerate(loader)]
    assert len({tuple(noise.flatten().tolist()) for noise in noises}) == 8


def test_nothing_is_loaded_for_what_is_skipped():
    class Counting(Noisy):
        read = 0

        def __getitem__(self, row):
            Counting.read += 1
            return super().__getitem__(row)

    loader = DataLoader(Counting(), batch_size=4)
    ResumableLoader.take_over(loader)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    loader.load_state_dict(loader.state_dict())
    Counting.read = 0
    assert len(list(loader)) == 1
    assert Counting.read == 4


class OfSomebodyElse(DataLoader):
    """Collates in a way of its own, as loaders of other libraries do."""

    def __init__(self, dataset, **options):
        super().__init__(dataset, collate_fn=lambda rows: ["collated", *rows], **options)


def test_a_subclass_that_iterates_like_any_other_stays_one():
    loader = OfSomebodyElse(Noisy(), batch_size=4)
    assert why_not_resumable(loader) is None
    ResumableLoader.take_over(loader)
    assert isinstance(loader, OfSomebodyElse)
    batches = iter(loader)
    assert next(batches)[0] == "collated"
    loader.load_state_dict(loader.state_dict())
    assert len(list(loader)) == 4


class Endless(DataLoader):
    def __iter__(self):
        while True:
            yield from super().__iter__()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(8))


class Unsized:
    def __iter__(self):
        return iter([[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (lambda: [1, 2], "is no `DataLoader`"),
        (lambda: DataLoader(Stream()), "reads an iterable data set, which can't be entered in the middle"),
        (lambda: Endless(Noisy()), "iterates in a way of its own"),
        (lambda: DataLoader(Noisy(), batch_sampler=Unsized()), "has no length"),
        (
            lambda: DataLoader(Noisy(), num_workers=2, in_order=False),
            r"gives out batches in the order in which they get ready (`in_order=False`)",
        ),
    ],
)
def test_loaders_that_stay_as_they_are(loader, reason):
    assert why_not_resumable(loader()) == reason


def test_a_rest_of_another_length_is_refused():
    loader = make("shuffled")
    next(iter(loader))
    state = loader.state_dict()
    fewer = DataLoader(Noisy(), batch_size=10)
    ResumableLoader.take_over(fewer)
    with pytest.raises(ValueError, match="in the middle of an epoch of 5 batches, and now an epoch has 2"):
        fewer.load_state_dict(state)
