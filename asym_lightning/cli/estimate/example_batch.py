"""A batch of the shapes that a task's data has, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a batch of one device; None where neither the data's config nor the command line says.

    Attributes:
        size: Rows.
        length: Tokens in a row; of the source, where there are two.
        target_length: Tokens of the target.
        image_size: Height and width.
        is_packed: Rows hold several examples.
    """

    size: int | None = None
    length: int | None = None
    target_length: int | None = None
    image_size: int | None = None
    is_packed: bool = False

    @classmethod
    def of_data(cls, data: Mapping[str, Any], given: Mapping[str, int | None]) -> BatchShape:
        """Read what a data module is configured with.

        Args:
            data: Arguments of the data module, ours or another, which often has a `batch_size` of its own.
            given: Options that come first: `batch_size`, `sequence_length`, `target_length`, `image_size`.
        """
        loader = data.get("loader")
        own_size = loader.get("batch_size") if isinstance(loader, Mapping) else data.get("batch_size")
        return cls(
            size=_first(given["batch_size"], own_size),
            length=_first(given["sequence_length"], data.get("max_length"), data.get("max_source_length")),
            target_length=_first(given["target_length"], data.get("max_target_length")),
            image_size=_first(given["image_size"], data.get("image_size")),
            is_packed=bool(data.get("packing")),
        )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def example_batch(module: Any, shape: BatchShape) -> Any:
    """Make a batch such as the task's data module gives, full to the last token; its numbers mean nothing.

    A module of another class has to have a method `example_batch(batch_size, sequence_length)` of its own.

    Raises:
        ValueError: A size is known from nowhere, or the task is not trained or not known.
    """
    size = _known(shape.size, "batch_size", "loader.batch_size")
    # By name: to import them all would take every extra.
    tasks = {cls.__name__ for cls in type(module).__mro__ if cls.__module__.startswith("asym_lightning.")}
    if "ImageClassifier" in tasks:
        channels, *sides = (module.data_config or {}).get("input_size", (3, None, None))
        height, width = (_first(shape.image_size, side) for side in sides)
        side = _known(height, "image_size", "image_size")
        width = side if width is None else width
        return torch.zeros(size, channels, side, width), torch.zeros(size, dtype=torch.int64)
    if "TextClassifier" in tasks:
        batch = _text(size, _length(module, shape))
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        batch["labels"] = torch.zeros(size, dtype=torch.float32 if module.is_regression else torch.int64)
        return batch
    if "InstructionTuner" in tasks:
        batch = _text(size, _length(module, shape))
        batch["labels"] = torch.zeros_like(batch["input_ids"])
        if shape.is_packed:
            batch["segment_ids"] = torch.ones_like(batch["input_ids"])
            batch["position_ids"] = torch.zeros_like(batch["input_ids"])
        return batch
    if "Summarizer" in tasks:
        batch = _text(size, _length(module, shape))
        target = _known(shape.target_length, "target_length", "max_target_length")
        batch["labels"] = torch.zeros(size, target, dtype=torch.int64)
        return batch
    if callable(own := getattr(module, "example_batch", None)):
        return own(size, shape.length)
    raise ValueError(
        f"what a batch of {type(module).__name__} looks like is not known here: give the class a method "
        "`example_batch(batch_size, sequence_length)`."
    )


def _length(module: Any, shape: BatchShape) -> int:
    from asym_lightning.modules.text_backbone import longest_sequence

    length = _known(shape.length, "sequence_length", "max_length")
    longest = longest_sequence(module.backbone)
    if longest is not None and length > longest:
        raise ValueError(f"`sequence_length` is {length}, but the backbone allows {longest}.")
    return length


def _text(size: int, length: int) -> dict[str, Tensor]:
    ids = torch.zeros(size, length, dtype=torch.int64)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _known(value: int | None, option: str, key: str) -> int:
    if value is None:
        raise ValueError(
            f"how large a batch is can't be read from the config, whose `data` sets no `{key}`: give "
            f"`--{option.replace('_', '-')}`."
        )
    if value < 1:
        raise ValueError(f"`{option}` must be at least 1, not {value}.")
    return value


def in_dtype(batch: Any, dtype: torch.dtype | None) -> Any:
    """Cast a batch's numbers, as Lightning does for `bf16-true`; None leaves them."""
    return (
        batch
        if dtype is None
        else apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)
    )
