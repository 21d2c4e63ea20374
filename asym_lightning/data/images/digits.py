"""Handwritten digits, upright and rotated: a domain shift that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.core.extras import check_installed
from asym_lightning.core.kinds import Count, Seed
from asym_lightning.data.base import BatchDataModule
from asym_lightning.data.loader_options import LoaderOptions

NUM_VAL = 200
NUM_TEST = 400


class DigitsSplit(NamedTuple):
    """Images (n, 1, 8, 8) in [0, 1] and labels (n,) of one split."""

    images: Tensor
    labels: Tensor


class DigitsDataModule(BatchDataModule):
    """Scikit-learn's 1,797 handwritten digits (8 x 8 grey levels), each rotated by named angles.

    Upright digits are the source domain, on which the bundled `vit_digits` backbone was pretrained; every
    other angle is a target domain. Rotated by 180 degrees, most digits turn into shapes that the backbone has
    never seen and some into other digits (a 6 into a 9), so a backbone that is not adapted fails.

    The split depends on `seed` alone: 200 validation images, 400 test images, the rest (1,197) for training.
    With the default seed, validation and test images were never seen by the pretrained backbone at any angle.
    Training images were, upright and with their labels: what is limited to `num_train` is the labels in
    the target domain.

    Batches are pairs `(images, labels)`: images (batch, 1, 8, 8) scaled to [-1, 1], labels (batch,).

    Args:
        angles: Angles, in degrees counter-clockwise, of the training and validation images. With several angles
            each image appears once at each. See `rotate` for how.
        test_angles: Angles of the test and prediction images; None means `angles`.
        num_train: Number of labelled training images, drawn evenly from the classes; None means all.
        seed: Seed of the split and of the choice of training images. It is apart from the seed of
            the run so that runs with other seeds see the same images.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If there are no angles, or `num_train` is out of range.
        ModuleNotFoundError: On `setup`, if scikit-learn is missing.

    Example:
        >>> data = DigitsDataModule(angles=[180], num_train=500)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, len(data.train_dataloader())
        (torch.Size([50, 1, 8, 8]), 10)
    """

    label_names = tuple(str(digit) for digit in range(10))

    def __init__(
        self,
        angles: Sequence[float] = (180,),
        test_angles: Sequence[float] | None = None,
        num_train: Count | None = 500,
        seed: Seed = 0,
        loader: LoaderOptions = LoaderOptions(batch_size=50, eval_batch_size=NUM_TEST),
    ) -> None:
        super().__init__(loader)
        if not angles or (test_angles is not None and not test_angles):
            raise ValueError("`angles` and `test_angles` must each name at least one angle, such as [180].")
        self.angles = tuple(angles)
        self.test_angles = self.angles if test_angles is None else tuple(test_angles)
        self.num_train = num_train
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Split and rotate the images; `stage` makes no difference, the whole set is 1,797 images."""
        splits = load_digits_splits(self.seed)
        train = splits["train"]
        if self.num_train is not None:
            train = take_balanced(train, self.num_train)
        self.train_set = rotated_dataset(train, self.angles)
        self.val_set = rotated_dataset(splits["val"], self.angles)
        self.test_set = rotated_dataset(splits["test"], self.test_angles)

    def train_dataloader(self) -> DataLoader:
        """Training batches, shuffled."""
        return self.data_loader(self.train_set, is_training=True, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Validation batches, at the training angles."""
        return self.data_loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        """Test batches, at `test_angles`."""
        return self.data_loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        """The test batches."""
        return self.test_dataloader()


def read_digits() -> tuple[Tensor, Tensor]:
    """Return grey levels (1797, 8, 8) and labels (1797,), as `sklearn.datasets.load_digits` does.

    Its file is read here, for to import scikit-learn takes longer than to train on the digits for some epochs.

    Raises:
        ModuleNotFoundError: If scikit-learn is missing.
    """
    check_installed("sklearn", needed_by="DigitsDataModule")
    package = Path(str(find_spec("sklearn").origin)).parent  # type: ignore[union-attr]  # it is installed
    rows = torch.from_numpy(np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", delimiter=","))
    return rows[:, :-1].reshape(-1, 8, 8).float(), rows[:, -1].long()


def load_digits_splits(seed: int = 0) -> dict[str, DigitsSplit]:
    """Return the upright splits "train" (1,197 images), "val" (200) and "test" (400), each in random order.

    Args:
        seed: Seed of the permutation that decides which image is in which split.

    Raises:
        ModuleNotFoundError: If scikit-learn, which ships the images, is not installed.

    Example:
        >>> {name: len(split.labels) for name, split in load_digits_splits().items()}
        {'train': 1197, 'val': 200, 'test': 400}
    """
    pixels, labels = read_digits()
    images = pixels.unsqueeze(1) / 16  # 17 grey levels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = order.split([len(order) - NUM_VAL - NUM_TEST, NUM_VAL, NUM_TEST])
    return {
        name: DigitsSplit(images[part], labels[part])
        for name, part in zip(("train", "val", "test"), parts, strict=True)
    }


def take_balanced(split: DigitsSplit, count: int) -> DigitsSplit:
    """Return the first `count` images when the classes take turns, so that each class has its share.

    Raises:
        ValueError: If the split has fewer than `count` images.

    Example:
        >>> split = DigitsSplit(torch.zeros(5, 1, 8, 8), torch.tensor([3, 3, 3, 1, 1]))
        >>> take_balanced(split, 4).labels
        tensor([1, 3, 1, 3])
    """
    if count > len(split.labels):
        raise ValueError(f"`num_train` must be at most {len(split.labels)}, the images there are, not {count}.")
    turn = torch.empty_like(split.labels)  # how many images of the same class come before
    for label in split.labels.unique():
        of_class = split.labels == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    chosen = (turn * (int(split.labels.max()) + 1) + split.labels).argsort()[:count]
    return DigitsSplit(split.images[chosen], split.labels[chosen])


def rotated_dataset(split: DigitsSplit, angles: Sequence[float]) -> TensorDataset:
    """Return the images of a split at each angle, scaled from [0, 1] to [-1, 1], with their labels."""
    images = torch.cat([rotate(split.images, angle) for angle in angles])
    return TensorDataset(images * 2 - 1, split.labels.repeat(len(angles)))


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Rotate square images counter-clockwise about their centre.

    Multiples of 90 degrees move pixels and change none. Other angles interpolate bilinearly, which
    blurs a little, and what comes in from outside the image is 0, the digits' background.

    Args:
        images: Images (n, channels, side, side).
        degrees: Any angle; negative is clockwise.

    Returns:
        Images of the same shape.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> rotate(image, 90)
        tensor([[[[2., 4.],
                  [1., 3.]]]])
    """
    quarter_turns, rest = divmod(degrees, 90)
    if rest == 0:
        return torch.rot90(images, int(quarter_turns), dims=(-2, -1))
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    cos, sin = angle.cos(), angle.sin()
    # `affine_grid` maps output to input positions with y pointing down: hence the inverse rotation, mirrored.
    matrix = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    theta = F.pad(matrix, (0, 1)).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
