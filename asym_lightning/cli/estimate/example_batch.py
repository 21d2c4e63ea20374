"""A batch of the shapes that a task's data has, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from asym_lightning.modules.batch_shape import BatchShape


def shape_of_batch(data: Mapping[str, Any], given: Mapping[str, Any]) -> BatchShape:
    """Read what a data module is configured with.

    Args:
        data: Arguments of the data module, ours or another, which often has a `batch_size` of its own.
        given: Options that come first: `batch_size`, `sequence_length`, `target_length`, `image_size`, `seconds`.
    """
    loader = data.get("loader")
    own_size = loader.get("batch_size") if isinstance(loader, Mapping) else data.get("batch_size")
    return BatchShape(
        size=_first(given["batch_size"], own_size),
        length=_first(given["sequence_length"], data.get("max_length"), data.get("max_source_length")),
        target_length=_first(given["target_length"], data.get("max_target_length")),
        image_size=_first(given["image_size"], data.get("image_size")),
        seconds=_first(given["seconds"], data.get("max_seconds")),
        is_packed=bool(data.get("packing")),
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def example_batch(module: LightningModule, shape: BatchShape) -> Any:
    """Let a module make a batch such as its data module gives, full to the last token; its numbers mean nothing.

    Raises:
        ValueError: A size is known from nowhere, or the task makes no batch.
    """
    own = getattr(module, "example_batch", None)
    if not callable(own):
        raise ValueError(
            f"what a batch of {type(module).__name__} looks like is not known here: give the class a method "
            "`example_batch(shape)`, where `shape.size` is the number of rows."
        )
    return own(shape)


def in_dtype(batch: Any, dtype: torch.dtype | None) -> Any:
    """Cast a batch's numbers, as Lightning does for `bf16-true`; None leaves them."""
    return (
        batch
        if dtype is None
        else apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)
    )
