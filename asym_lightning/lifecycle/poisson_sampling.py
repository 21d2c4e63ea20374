"""Training batches that every sample is in by chance, independently of all others, as accountants of privacy assume."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler


def num_rows(batch: Any) -> int:
    """The length of the first dimension of all tensors of a batch.

    Raises:
        ValueError: It differs, or there is none.

    Example:
        >>> num_rows({"x": torch.zeros(3, 2), "y": torch.zeros(3)})
        3
    """
    lengths: set[int] = set()
    apply_to_collection(batch, Tensor, lambda tensor: lengths.add(len(tensor) if tensor.ndim else -1))
    if len(lengths) != 1 or lengths == {-1}:
        raise ValueError(
            f"a batch has tensors of {len(lengths)} lengths, so its samples can't be told apart: each tensor has to "
            "have them as its first dimension."
        )
    return lengths.pop()


def rows_of(batch: Any, rows: slice) -> Any:
    """Some samples of a batch.

    >>> rows_of([torch.arange(3), "name"], slice(1, 3))
    [tensor([1, 2]), 'name']
    """
    return apply_to_collection(batch, Tensor, lambda tensor: tensor[rows])


def draw_by_chance(trainer: Trainer, generator: torch.Generator) -> None:
    """Let a Trainer's training loader become one of Poisson samples when it hands it to its strategy in fit.

    Args:
        trainer: In `setup`; a second call with the same generator does nothing.
        generator: What batches are drawn by.
    """
    strategy = trainer.strategy
    process = strategy.process_dataloader
    if getattr(process, "draws_by", None) is generator:
        return

    def process_drawn(dataloader: object) -> object:
        return process(poisson_loader(dataloader, generator) if trainer.training else dataloader)

    vars(process_drawn).update(getattr(process, "__dict__", {}), draws_by=generator)
    strategy.process_dataloader = process_drawn  # type: ignore[method-assign]


def poisson_loader(loader: object, generator: torch.Generator) -> DataLoader:
    """A loader of the same data and as many batches, in each of which is every sample with the same probability.

    Args:
        loader: Whose batches are each sample once, in any order.
        generator: What batches are drawn by.

    Raises:
        ValueError: The loader is no such one.
    """
    # With the extra `private` alone.
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    reason = _why_not(loader)
    if reason is not None:
        raise ValueError(
            f"Private training draws every batch by chance from the whole data set, and the training loader {reason}."
        )
    assert isinstance(loader, DataLoader)
    num_samples, num_batches = len(loader.dataset), len(loader)  # type: ignore[arg-type]
    options: dict[str, Any] = {} if loader.num_workers == 0 else {"prefetch_factor": loader.prefetch_factor}
    return DataLoader(
        loader.dataset,
        batch_sampler=UniformWithReplacementSampler(
            num_samples=num_samples, sample_rate=1 / num_batches, generator=generator, steps=num_batches
        ),
        collate_fn=partial(_collated, loader.collate_fn, loader.dataset),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
        **options,
    )


def sample_rate(loader: DataLoader) -> float:
    """The probability with which a sample is in a batch of a :func:`poisson_loader`."""
    sampler: Any = loader.batch_sampler
    return float(sampler.sample_rate)


def _collated(collate: Callable[[list[Any]], Any], dataset: Dataset[Any], samples: list[Any]) -> Any:
    """A batch, which may be of no sample: then it has the form of one."""
    return collate(samples) if samples else rows_of(collate([dataset[0]]), slice(0))


def _why_not(loader: object) -> str | None:
    if not isinstance(loader, DataLoader):
        return "is no `DataLoader`"
    if isinstance(loader.dataset, IterableDataset):
        return "reads an iterable data set, from which none can be drawn"
    if type(loader.batch_sampler) is not BatchSampler:
        return "has no batches, or makes them in a way of its own"
    sampler: Any = loader.batch_sampler.sampler  # the loader has another, where it was given batches
    gives_each_once = (
        isinstance(sampler, SequentialSampler)
        or (isinstance(sampler, RandomSampler) and not sampler.replacement)
        or getattr(sampler, "is_permutation", False)
    )
    if not gives_each_once or len(sampler) != len(loader.dataset):  # type: ignore[arg-type]
        return f"has a {type(sampler).__name__}, which may leave samples out or repeat them"
    return None
