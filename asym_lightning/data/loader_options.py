"""How batches are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from asym_lightning.core.kinds import Count, Range
from asym_lightning.core.options import check_kinds


@dataclass(frozen=True)
class LoaderOptions:
    """How data sets are cut into batches, and who prepares them: the same for every data module.

    Sizes are those of one process: with 4 GPUs an optimizer step sees 4 times as many rows. Data modules have defaults
    of their own, which a config changes one by one; in Python what is left out has the defaults given here.

    Args:
        batch_size: Rows in a training batch.
        eval_batch_size: Rows in a batch of validation, test and prediction; null means twice `batch_size`, for nothing
            is kept there for a backward pass.
        num_workers: Processes that prepare batches; 0 prepares them in the training process, which is right for what is
            in memory: rows of tokens take well under a millisecond, images in files do not.
        persistent_workers: Keep these processes from one epoch to the next.
        prefetch_factor: Batches that each of these processes prepares ahead; null means PyTorch's 2.
        pin_memory: Put batches into page-locked memory, from where a GPU copies them while it computes; null does so
            where there is a GPU.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If a number is out of range, or `prefetch_factor` is given without `num_workers`.

    Example:
        >>> LoaderOptions(batch_size=8).arguments(is_training=False, is_on_gpu=False)["batch_size"]
        16
    """

    batch_size: Count = 32
    eval_batch_size: Count | None = None
    num_workers: Annotated[int, Range(0, 512)] = 0
    persistent_workers: bool = True
    prefetch_factor: Count | None = None
    pin_memory: bool | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.prefetch_factor is not None and not self.num_workers:
            raise ValueError(
                f"`prefetch_factor` {self.prefetch_factor} is for workers: set `num_workers` to at least 1, or leave "
                "it out."
            )

    def arguments(self, *, is_training: bool, is_on_gpu: bool) -> dict[str, Any]:
        """Return the arguments of a `DataLoader`, by name: given by position, Lightning can't make it anew to predict.

        Args:
            is_training: Whether the batches are to train on.
            is_on_gpu: Whether a GPU is going to take them.
        """
        eval_batch_size = 2 * self.batch_size if self.eval_batch_size is None else self.eval_batch_size
        return {
            "batch_size": self.batch_size if is_training else eval_batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.persistent_workers and self.num_workers > 0,
            "prefetch_factor": self.prefetch_factor,
            "pin_memory": is_on_gpu if self.pin_memory is None else self.pin_memory,
        }
