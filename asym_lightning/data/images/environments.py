"""Environments of domain generalization: the same classes under other circumstances, each split as DomainBed does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from asym_lightning.data.images.digits import load_digits_splits, rotate
from asym_lightning.data.images.image_files import ImageFiles, Sample, class_names, find_samples, readable_samples
from asym_lightning.data.images.image_transforms import Transform

HOLDOUT = 0.2
"""Share of each environment that DomainBed calls `out` and holds out."""
DIGIT_ANGLES = (0, 15, 30, 45, 60, 75)


class Environment(Protocol):
    """Images of one environment, by number."""

    @property
    def name(self) -> str:
        """Its name, as options give it."""

    def __len__(self) -> int:
        """Return the number of images."""

    def dataset(self, chosen: Sequence[int], transform: Transform) -> Dataset:
        """Return the images of these numbers."""


@dataclass(frozen=True)
class FolderEnvironment:
    """Images in files."""

    name: str
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def dataset(self, chosen: Sequence[int], transform: Transform) -> Dataset:
        """Return the images of these numbers."""
        return ImageFiles([self.samples[number] for number in chosen], transform)


@dataclass(frozen=True)
class TensorEnvironment:
    """Images in memory, which need no transform."""

    name: str
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def dataset(self, chosen: Sequence[int], transform: Transform) -> Dataset:
        """Return the images of these numbers."""
        return TensorDataset(self.images[list(chosen)], self.labels[list(chosen)])


def read_environments(
    root: Path, skip_corrupt: bool = False, allow_missing_classes: bool = False
) -> tuple[list[FolderEnvironment], list[str]]:
    """Read a data set in the layout `root/<environment>/<class>/<image>`.

    One index of classes, the union over the environments, numbers the classes of all: DomainBed numbers them
    in each environment anew, so that an environment that lacks a class has other numbers.

    Args:
        root: Folder of the environments.
        skip_corrupt: Leave out images that cannot be read.
        allow_missing_classes: Accept an environment that lacks a class.

    Returns:
        Environments and classes, both sorted by name.

    Raises:
        ValueError: If an environment has no images, or lacks a class.
    """
    names = class_names(root)
    classes = sorted({name for environment in names for name in class_names(root / environment)})
    environments = []
    for name in names:
        samples = find_samples(root / name, classes, allow_missing_classes)
        samples = readable_samples(samples) if skip_corrupt else samples
        if not samples:
            raise ValueError(f"{root / name} has no images.")
        environments.append(FolderEnvironment(name, samples))
    return environments, classes


def rotated_digits(angles: Sequence[float] = DIGIT_ANGLES, seed: int = 0) -> list[TensorEnvironment]:
    """Return scikit-learn's digits as environments, each with other images at another angle, as in RotatedMNIST.

    Args:
        angles: Angle of each environment, in degrees counter-clockwise.
        seed: Seed of which image is in which environment.

    Example:
        >>> [(environment.name, len(environment)) for environment in rotated_digits()][:2]
        [('0', 300), ('15', 300)]
    """
    splits = load_digits_splits(seed).values()
    images = torch.cat([split.images for split in splits])
    labels = torch.cat([split.labels for split in splits])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    environments = []
    for number, angle in enumerate(angles):
        part = order[number :: len(angles)]
        environments.append(TensorEnvironment(f"{angle:g}", rotate(images[part], angle) * 2 - 1, labels[part]))
    return environments


def domainbed_split(count: int, trial_seed: int, environment: int) -> tuple[list[int], list[int]]:
    """Return the images of an environment that DomainBed calls `in` (80 %, to train on) and `out` (20 %, held out).

    Args:
        count: Images in the environment.
        trial_seed: DomainBed's `--trial_seed`.
        environment: Number of the environment, in the order of names.

    Example:
        >>> inside, outside = domainbed_split(10, trial_seed=0, environment=1)
        >>> len(inside), outside
        (8, [5, 0])

    Source: `split_dataset` and `seed_hash` in domainbed/lib/misc.py; `out` is the first fifth of the shuffled numbers.
    """
    digest = hashlib.md5(str((trial_seed, environment)).encode()).hexdigest()
    random: Any = np.random.RandomState(int(digest, 16) % 2**31)
    order = list(range(count))
    random.shuffle(order)
    held_out = int(HOLDOUT * count)
    return order[held_out:], order[:held_out]
