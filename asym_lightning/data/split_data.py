"""The data module of splits read row by row: training batches of rows of like length, and named evaluation sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from asym_lightning.core.kinds import Count, Seed
from asym_lightning.data.base import SPLITS, BatchDataModule
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tokens.length_bucketing import LengthBucketSampler, LongestFirstSampler


class SplitDataModule(BatchDataModule, ABC):
    """Rows of splits: training batches of rows of like length in a random order, and evaluation sets with names.

    A kind of data is a subclass with three methods: `sources`, where each split comes from, `load`, which makes rows of
    one, and `padded_loader`, which makes batches of rows. Rows are a data set with a method `lengths`.

    Splits go by `train`, `val`, `test` and `predict`; where a split consists of several sets, by `val/matched` and so
    on: each becomes a data loader of its own, and `evaluation_sets` tells the module how to name their metrics.

    Args:
        seed: Seed of the order of training rows; apart from the run's, so that other runs can see the same order.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If a number is out of range.

    Attributes:
        rows: Rows of each split, once they are read.
    """

    def __init__(self, seed: Seed, num_train: Count | None, loader: LoaderOptions) -> None:
        super().__init__(loader)
        self.seed = seed
        self.num_train = num_train
        self.rows: dict[str, Any] = {}

    # What a kind of data defines

    @abstractmethod
    def sources(self) -> Mapping[str, TextSource]:
        """Return where each split comes from."""

    @abstractmethod
    def load(self, split: str) -> Any:
        """Return the rows of a split.

        Raises:
            ValueError: If the split is empty, or a row of it is wrong.
        """

    @abstractmethod
    def padded_loader(self, rows: Dataset, *, is_training: bool = False, sampler: Sampler) -> DataLoader:
        """Return padded batches of rows, in the order of a sampler."""

    def remarks(self, split: str, rows: Any) -> Iterator[str]:
        """Say what there is to know of a split beside its rows, such as what was left out: each is a warning."""
        yield from ()

    def for_evaluation(self, split: str, rows: Any) -> Any:
        """Return rows with what evaluation and prediction need beside, such as whole texts."""
        return rows

    # Reading

    def prepare_data(self) -> None:
        """Read what is going to be asked for; Lightning calls this in one process.

        Before training all splits are, so that what is wrong with a test file is said before hours of training. Else
        those that are asked for: what a model is trained on need not be there where it predicts.
        """
        for split in self.sources():
            if self._stage in ("fit", None) or split.partition("/")[0] in SPLITS[self._stage]:
                self.load(split)

    @property
    def _stage(self) -> str | None:
        running = None if self.trainer is None else self.trainer.state.fn
        return None if running is None else running.value

    def setup(self, stage: str) -> None:
        """Read what the stage needs.

        Raises:
            ValueError: If a split is empty, or a row of it is wrong.
        """
        for split in self.sources():
            if split.partition("/")[0] in SPLITS[stage] and split not in self.rows:
                rows = self.load(split)
                for remark in self.remarks(split, rows):
                    rank_zero_warn(remark)
                self.rows[split] = rows if split == "train" else self.for_evaluation(split, rows)

    # Batches

    @property
    def evaluation_sets(self) -> dict[str, list[str]]:
        """Names of the sets of a split that has several, by split; the data loaders come in this order."""
        sets: dict[str, list[str]] = {}
        for split in self.sources():
            stage, _, name = split.partition("/")
            if name:
                sets.setdefault(stage, []).append(name)
        return sets

    def train_dataloader(self) -> DataLoader:
        """Training batches: rows of like length, in random order."""
        rows = self._rows("train")
        lengths = rows.lengths()
        if self.num_train is not None:
            chosen = self._chosen_rows(len(rows), self.num_train)
            rows, lengths = Subset(rows, chosen.tolist()), lengths[chosen]
        sampler = LengthBucketSampler(lengths, self.batch_size, self.seed)
        return self.padded_loader(rows, is_training=True, sampler=sampler)

    def _chosen_rows(self, count: int, num_train: int) -> npt.NDArray[np.int64]:
        if num_train > count:
            raise ValueError(f"`num_train` must be at most {count}, the training rows there are, not {num_train}.")
        return np.random.default_rng(0).permutation(count)[:num_train]

    def val_dataloader(self) -> list[DataLoader]:
        """Validation batches, the longest rows first; a data loader for each set."""
        return self._evaluation("val")

    def test_dataloader(self) -> list[DataLoader]:
        """Test batches, the longest rows first; a data loader for each set."""
        return self._evaluation("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Batches to predict, the longest rows first; a data loader for each set."""
        return self._evaluation("predict")

    def _evaluation(self, stage: str) -> list[DataLoader]:
        splits = [split for split in self.sources() if split.partition("/")[0] == stage]
        if not splits and stage != "val":  # training without validation is a choice, testing on nothing is not
            raise ValueError(f"there is no {stage} data: the data module has {', '.join(self.sources()) or 'none'}.")
        return [
            self.padded_loader(rows, sampler=LongestFirstSampler(rows.lengths())) for rows in map(self._rows, splits)
        ]

    def _rows(self, split: str) -> Any:
        if split not in self.rows:
            raise ValueError(f"there is no {split} data: the data module has {', '.join(self.rows) or 'none'}.")
        return self.rows[split]
