"""The LightningDataModule that every data set builds on."""

from __future__ import annotations

import dataclasses
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader, Dataset

from asym_lightning.core.options import CheckedArguments, from_plain
from asym_lightning.data.loader_options import LoaderOptions

SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
"""Those that a stage of Lightning needs."""


class BatchDataModule(CheckedArguments, LightningDataModule):
    """A data module whose batches are made as `loader` says.

    Args:
        loader: Sizes of batches, and the processes that prepare them.

    Attributes:
        loader: The same.
    """

    def __init__(self, loader: LoaderOptions) -> None:
        super().__init__()
        self.loader: LoaderOptions = from_plain(LoaderOptions, loader)

    @property
    def label_names_of_model(self) -> list[str] | None:
        """Names of the classes that the model knows by itself, as one from a checkpoint does; None if it does not."""
        names = getattr(getattr(self.trainer, "lightning_module", None), "label_names", None)
        return None if names is None else list(names)

    def given_or_of_backbone(self, option: str, given: Any) -> Any:
        """Return what an option gives, or the name of the module's backbone where it is None.

        Raises:
            ValueError: If it is not given and there is no name to take.
        """
        if given is not None:
            return given
        module = getattr(self.trainer, "lightning_module", None)
        source = module.hparams.get("backbone") if module is not None else None
        if not isinstance(source, str):
            raise ValueError(f"`{option}` is not given, and the model's `backbone` is no name to take it from.")
        return source

    @property
    def batch_size(self) -> int:
        """Rows in a training batch; may be set, as Lightning's `BatchSizeFinder` does."""
        return self.loader.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self.loader = dataclasses.replace(self.loader, batch_size=size)

    @property
    def eval_batch_size(self) -> int:
        """Rows in a batch of validation, test and prediction; may be set too."""
        return self._arguments(is_training=False)["batch_size"]

    @eval_batch_size.setter
    def eval_batch_size(self, size: int) -> None:
        self.loader = dataclasses.replace(self.loader, eval_batch_size=size)

    def data_loader(self, dataset: Dataset, *, is_training: bool = False, **arguments: Any) -> DataLoader:
        """Return the batches of a data set.

        Args:
            dataset: The data set.
            is_training: Whether the batches are to train on, which are of another size.
            arguments: Arguments of `DataLoader` that are the data set's own, such as its sampler.
        """
        return DataLoader(dataset, **{**self._arguments(is_training), **arguments})

    def _arguments(self, is_training: bool) -> dict[str, Any]:
        is_on_gpu = isinstance(getattr(self.trainer, "accelerator", None), CUDAAccelerator)
        return self.loader.arguments(is_training=is_training, is_on_gpu=is_on_gpu)
