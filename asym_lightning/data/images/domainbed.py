"""Domain generalization: train in some environments, test in the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler

from asym_lightning.core.kinds import Count, FractionBelowOne, Names, Seed, as_names
from asym_lightning.core.messages import check_choice, not_one_of
from asym_lightning.data.images.environments import (
    DIGIT_ANGLES,
    Environment,
    domainbed_split,
    read_environments,
    rotated_digits,
)
from asym_lightning.data.images.image_data import ImageDataModule
from asym_lightning.data.images.image_transforms import IMAGENET_MEAN, IMAGENET_STD, eval_transform, train_transform
from asym_lightning.data.loader_options import LoaderOptions

OodSplit = Literal["all", "in", "out"]
DOWNLOAD = "`python -m domainbed.scripts.download` of https://github.com/facebookresearch/DomainBed downloads it"


@dataclass(frozen=True)
class DomainBedDataset:
    """What is known of a data set.

    Args:
        folder: Its folder below DomainBed's data folder; None where it needs no files.
        environments: Its environments.
        num_classes: Its classes.
        train_environment: The environment that the paper trains on; for TerraIncognita and the digits, which
            the paper does not name or have, the first.
    """

    folder: str | None
    environments: tuple[str, ...]
    num_classes: int
    train_environment: str


DATASETS: Mapping[str, DomainBedDataset] = {
    "VLCS": DomainBedDataset("VLCS", ("Caltech101", "LabelMe", "SUN09", "VOC2007"), 5, "LabelMe"),
    "PACS": DomainBedDataset("PACS", ("art_painting", "cartoon", "photo", "sketch"), 7, "cartoon"),
    "OfficeHome": DomainBedDataset("office_home", ("Art", "Clipart", "Product", "Real World"), 65, "Clipart"),
    "TerraIncognita": DomainBedDataset(
        "terra_incognita", ("location_100", "location_38", "location_43", "location_46"), 10, "location_100"
    ),
    "RotatedDigits": DomainBedDataset(None, tuple(f"{angle}" for angle in DIGIT_ANGLES), 10, "0"),
}


class DomainBedDataModule(ImageDataModule):
    """VLCS, PACS, OfficeHome and TerraIncognita in DomainBed's folders, and rotated digits without any.

    Each environment is split as DomainBed splits it: `out`, 20 %, and `in`, 80 %. A part of `in` of the training
    environments is kept for validation. What is reported:

    - `val/<environment>/accuracy`, and `val/accuracy`, its mean: on training environments alone. Select by this.
    - `test/<environment>_train/accuracy`: on what was trained on; `test/<environment>_test/accuracy`: on `out`.
    - `test/<environment>/accuracy`: in each other environment.
    - `test/train_accuracy`, `test/in_domain_accuracy` (on `out`) and `test/train_test_gap`, their difference; means
      over the training environments.
    - `test/ood_accuracy`: the mean over the other environments, each counting the same.

    Unlike DomainBed, it never augments images that are evaluated, numbers the classes once for all environments, and
    keeps the 20 % out of model selection. An epoch shows every image of the largest training environment once.

    Args:
        dataset: VLCS, PACS, OfficeHome, TerraIncognita or RotatedDigits.
        folder: DomainBed's data folder, which holds `VLCS`, `PACS`, `office_home` and `terra_incognita`, or the data
            set's own folder in it.
        train_environments: Environments to train on; None means the paper's (LabelMe, cartoon, Clipart), or the
            first where the paper does not say.
        test_environments: Environments to test on out of domain; None means all others.
        ood_split: Which images of these: `all`, or those that DomainBed calls `in` or `out`.
        trial_seed: DomainBed's seed of the split.
        val_fraction: Share of `in` that is kept for validation; 0 trains on all of it, without validation.
        domainbed_norm: Normalise with ImageNet's mean and deviation, as DomainBed does, not with the model's own.
        skip_corrupt: Leave images out that cannot be read, with a warning that counts them, instead of an error.
        allow_missing_classes: Accept an environment that lacks a class.
        augmentation: What training images go through: `none`, `crop_flip` or `domainbed`.
        image_size: Height and width of the model's images; None means the model's own.
        loader: Sizes of batches, and the processes that prepare them; `batch_size` images are those of each training
            environment.

    Raises:
        ValueError: If the data set or an environment is unknown, or a number is out of range.
        FileNotFoundError: When starting, if the data set is not there; the message says where to get it.

    Example:
        >>> data = DomainBedDataModule("RotatedDigits", train_environments=["30"])
        >>> data.setup("fit")
        >>> data.evaluation_sets["test"]
        ['30_train', '30_test', '0', '15', '45', '60', '75']
    """

    def __init__(
        self,
        dataset: str,
        folder: str | Path | None = None,
        train_environments: Names | None = None,
        test_environments: Names | None = None,
        ood_split: OodSplit = "all",
        trial_seed: Seed = 0,
        val_fraction: FractionBelowOne = 0.1,
        domainbed_norm: bool = False,
        skip_corrupt: bool = False,
        allow_missing_classes: bool = False,
        augmentation: Literal["none", "crop_flip", "domainbed"] = "domainbed",
        image_size: Count | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if domainbed_norm else (None, None)
        super().__init__(augmentation=augmentation, image_size=image_size, mean=mean, std=std, loader=loader)
        check_choice("dataset", dataset, DATASETS)
        check_choice("ood_split", ood_split, get_args(OodSplit))
        self.description = DATASETS[dataset]
        self.dataset_name = dataset
        self.folder = None if folder is None else Path(folder).expanduser()
        train = self.description.train_environment if train_environments is None else train_environments
        self.train_environments = list(as_names(train))
        self.test_environments = None if test_environments is None else list(as_names(test_environments))
        if not self.train_environments:
            raise ValueError("`train_environments` must name at least one environment, or be null for the paper's.")
        self.ood_split = ood_split
        self.trial_seed = trial_seed
        self.val_fraction = val_fraction
        self.skip_corrupt = skip_corrupt
        self.allow_missing_classes = allow_missing_classes
        self.environments: list[Environment] = []
        self.label_names: list[str] = []

    # Environments

    def setup(self, stage: str) -> None:
        """Find the images of all environments."""
        if self.environments:
            return
        if self.description.folder is None:
            self.environments = list(rotated_digits())
            self.label_names = [str(digit) for digit in range(10)]
        else:
            environments, self.label_names = read_environments(
                self._root(), self.skip_corrupt, self.allow_missing_classes
            )
            self.environments = list(environments)
        known = [environment.name for environment in self.environments]
        for option in ("train_environments", "test_environments"):
            for name in getattr(self, option) or ():
                if name not in known:
                    raise ValueError(not_one_of(f"`{option}` of {self.dataset_name}", name, known))
        both = set(self.train_environments) & set(self.test_environments or ())
        if both:
            raise ValueError(
                f"the environments {', '.join(sorted(both))} are both trained on and tested out of domain."
            )

    def _root(self) -> Path:
        name = self.description.folder
        assert name is not None
        environments = ", ".join(self.description.environments)
        if self.folder is None:
            raise FileNotFoundError(
                f"`folder` must name DomainBed's data folder, which holds {name}/ with {environments}; {DOWNLOAD}."
            )
        root = self.folder if self.folder.name == name else self.folder / name
        if not root.is_dir():
            raise FileNotFoundError(
                f"{self.dataset_name} is expected in {str(root)!r}, with one folder an environment ({environments}) "
                f"and in it one folder a class; {DOWNLOAD}."
            )
        return root

    def _parts(self, name: str) -> dict[str, list[int]]:
        """Numbers of an environment's images: `in`, `out`, `all`, and `in` divided into `train` and `val`."""
        number = [environment.name for environment in self.environments].index(name)
        count = len(self.environments[number])
        inside, outside = domainbed_split(count, self.trial_seed, number)
        num_val = int(self.val_fraction * len(inside))
        if self.val_fraction and not num_val:
            raise ValueError(f"{name} has {count} images, too few to keep {self.val_fraction} of them for validation.")
        return {
            "in": inside,
            "out": outside,
            "all": list(range(count)),
            "val": inside[:num_val],
            "train": inside[num_val:],
        }

    @property
    def ood_environments(self) -> list[str]:
        """Environments to test on out of domain."""
        others = [e.name for e in self.environments if e.name not in self.train_environments]
        return others if self.test_environments is None else self.test_environments

    # What is evaluated

    @property
    def evaluation_sets(self) -> dict[str, list[str]]:
        """Names of the sets of validation, test and prediction, in the order of the data loaders."""
        return {"val": list(self._val_parts()), "test": list(self._test_parts()), "predict": list(self._ood_parts())}

    def _val_parts(self) -> dict[str, tuple[str, str]]:
        """Environment and part of each validation set."""
        return {_metric_name(name): (name, "val") for name in self.train_environments if self.val_fraction}

    def _test_parts(self) -> dict[str, tuple[str, str]]:
        parts = {}
        for name in self.train_environments:
            parts[f"{_metric_name(name)}_train"] = (name, "train")
            parts[f"{_metric_name(name)}_test"] = (name, "out")
        return parts | self._ood_parts()

    def _ood_parts(self) -> dict[str, tuple[str, str]]:
        return {_metric_name(name): (name, self.ood_split) for name in self.ood_environments}

    def summarize(self, stage: str, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means over environments, given the values of each set by name."""

        def mean(names: Sequence[str]) -> float:
            return statistics.fmean(values[f"{stage}/{name}/accuracy"] for name in names)

        trained = [_metric_name(name) for name in self.train_environments]
        if stage == "val":
            losses = statistics.fmean(values[f"val/{name}/loss"] for name in trained)
            return {"val/accuracy": mean(trained), "val/loss": losses}
        train, in_domain = mean([f"{name}_train" for name in trained]), mean([f"{name}_test" for name in trained])
        summary = {
            "test/train_accuracy": train,
            "test/in_domain_accuracy": in_domain,
            "test/train_test_gap": train - in_domain,
        }
        if self.ood_environments:
            summary["test/ood_accuracy"] = mean([_metric_name(name) for name in self.ood_environments])
        return summary

    # Batches

    def train_dataloader(self) -> DataLoader:
        """Training batches: augmented images, as many of each training environment."""
        transform = train_transform(self.image_input(), self.augmentation)
        datasets = [self._dataset(name, "train", transform) for name in self.train_environments]
        return self.data_loader(
            ConcatDataset(datasets),
            is_training=True,
            batch_size=self.batch_size * len(datasets),
            sampler=BalancedSampler([len(dataset) for dataset in datasets]),  # type: ignore[arg-type]
            drop_last=True,
        )

    def val_dataloader(self) -> list[DataLoader]:
        """Validation batches of each training environment, not augmented."""
        return self._evaluation(self._val_parts())

    def test_dataloader(self) -> list[DataLoader]:
        """Test batches of each set, not augmented."""
        return self._evaluation(self._test_parts())

    def predict_dataloader(self) -> list[DataLoader]:
        """Batches of each environment out of domain, not augmented."""
        return self._evaluation(self._ood_parts())

    def _evaluation(self, parts: Mapping[str, tuple[str, str]]) -> list[DataLoader]:
        transform = eval_transform(self.image_input(), crop=False)
        return [self.data_loader(self._dataset(name, part, transform)) for name, part in parts.values()]

    def _dataset(self, name: str, part: str, transform) -> Dataset:  # type: ignore[no-untyped-def]
        environment = next(e for e in self.environments if e.name == name)
        return environment.dataset(self._parts(name)[part], transform)


class BalancedSampler(Sampler[int], Sized):
    """Random order of several data sets, one after another: first an image of each, then the next of each, and so on.

    The largest is gone through once; those that are smaller start over, in a new order.

    Args:
        sizes: Number of images of each data set.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> list(BalancedSampler([2, 1]))
        [0, 2, 1, 2]
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)

    def __len__(self) -> int:
        return max(self.sizes) * len(self.sizes)

    def __iter__(self) -> Iterator[int]:
        starts = torch.tensor([0, *self.sizes]).cumsum(0).tolist()
        columns = [
            [start + number for number in self._order(size)]
            for start, size in zip(starts[:-1], self.sizes, strict=True)
        ]
        yield from (number for numbers in zip(*columns, strict=True) for number in numbers)

    def _order(self, size: int) -> list[int]:
        rounds = -(-max(self.sizes) // size)
        order = torch.cat([torch.randperm(size) for _ in range(rounds)])
        return order[: max(self.sizes)].tolist()


def _metric_name(environment: str) -> str:
    return environment.replace(" ", "_")
