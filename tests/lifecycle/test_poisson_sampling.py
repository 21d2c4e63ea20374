"""Batches that every sample is in by chance: how often, of which form, and from which loaders."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler, TensorDataset

from asym_lightning.data.tokens.length_bucketing import LengthBucketSampler
from asym_lightning.lifecycle.poisson_sampling import num_rows, poisson_loader, rows_of, sample_rate

pytest.importorskip("opacus")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def collate(rows):
    return {"x": torch.stack([row[0] for row in rows]), "names": ["a"]}


def dataset(num=20):
    return TensorDataset(torch.arange(num).float()[:, None])


def test_each_sample_is_in_each_batch_with_one_probability():
    loader = poisson_loader(DataLoader(dataset(), batch_size=4, shuffle=True), generator())
    assert len(loader) == 5 and sample_rate(loader) == 0.2
    counts, sizes = torch.zeros(20), []
    for _ in range(200):
        for (x,) in loader:
            counts[x[:, 0].long()] += 1
            sizes.append(len(x))
    assert ((counts / 1000 - 0.2).abs() < 0.06).all()  # 4.7 standard deviations
    assert torch.tensor(sizes).float().var() == pytest.approx(20 * 0.2 * 0.8, rel=0.2)
    assert 0 in sizes


def test_the_order_is_the_generators():
    loaders = [poisson_loader(DataLoader(dataset(), 4), generator(seed)) for seed in (1, 1, 2)]
    one, same, other = ([x[:, 0].tolist() for (x,) in loader] for loader in loaders)
    assert one == same != other


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_empty_batch_has_the_form_of_others(num_workers):
    given = DataLoader(dataset(3), batch_size=1, collate_fn=collate, num_workers=num_workers)
    batches = [batch for _ in range(4) for batch in poisson_loader(given, generator())]
    empty = [batch for batch in batches if num_rows(batch) == 0]
    assert empty and all(batch["x"].shape == (0, 1) and batch["names"] == ["a"] for batch in empty)


def test_rows_of_one_length_are_told():
    assert rows_of((torch.arange(4), {"y": torch.arange(4)}), slice(2))[1]["y"].tolist() == [0, 1]
    for batch in ([torch.zeros(2), torch.zeros(3)], [torch.zeros(())], ["text"]):
        with pytest.raises(ValueError, match="samples can't be told apart"):
            num_rows(batch)


def test_orders_of_the_whole_data_set_are_replaced():
    for sampler in (RandomSampler(dataset()), SequentialSampler(dataset()), LengthBucketSampler(range(20), 4)):
        assert len(poisson_loader(DataLoader(dataset(), 4, sampler=sampler), generator())) == 5


class Stream(IterableDataset):
    def __iter__(self):
        return iter(dataset())


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([1, 2], "is no `DataLoader`"),
        (DataLoader(Stream()), "reads an iterable data set"),
        (DataLoader(dataset(), None), "has no batches"),
        (DataLoader(dataset(), batch_sampler=[[0]]), "in a way of its own"),
        (DataLoader(dataset(), sampler=RandomSampler(dataset(), replacement=True)), "a RandomSampler, which may leave"),
        (DataLoader(dataset(), sampler=RandomSampler(dataset(), num_samples=5)), "may leave samples out"),
        (DataLoader(dataset(), batch_sampler=BatchSampler([0, 1], 1, False)), "has a list, which may leave"),
    ],
)
def test_other_loaders_are_refused(loader, message):
    with pytest.raises(ValueError, match=f"the training loader .*{message}"):
        poisson_loader(loader, generator())
