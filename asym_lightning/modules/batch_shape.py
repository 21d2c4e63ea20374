"""The sizes of a batch, for batches that are made without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Field: what the option of `estimate` is called, and the key of a data module's config that says it.
_SOURCES = {
    "size": ("batch_size", "loader.batch_size"),
    "length": ("sequence_length", "max_length"),
    "target_length": ("target_length", "max_target_length"),
    "image_size": ("image_size", "image_size"),
    "seconds": ("seconds", "max_seconds"),
}


@dataclass(frozen=True)
class BatchShape:
    """Sizes of a batch of one device; None where neither the data's config nor the command line says.

    >>> BatchShape(size=4).known("size")
    4

    Args:
        size: Rows.
        length: Tokens in a row; of the source, where there are two.
        target_length: Tokens of the target.
        image_size: Height and width.
        seconds: Length of clips of sound.
        is_packed: Rows hold several examples.
    """

    size: int | None = None
    length: int | None = None
    target_length: int | None = None
    image_size: int | None = None
    seconds: float | None = None
    is_packed: bool = False

    def known(self, field: str) -> Any:
        """Return a size that a batch can't do without.

        Raises:
            ValueError: It is not known, or less than 1; the message says where to give it.
        """
        value: float | None = getattr(self, field)
        option, key = _SOURCES[field]
        if value is None:
            raise ValueError(
                f"how large a batch is can't be read from the config, whose `data` sets no `{key}`: give "
                f"`--{option.replace('_', '-')}`."
            )
        if value < 1 and field != "seconds":
            raise ValueError(f"`{option}` must be at least 1, not {value}.")
        return value

    def images(self, data_config: Mapping[str, Any] | None = None) -> Tensor:
        """Return images (size, channels, height, width): of the size that is given, or else that of a model.

        Args:
            data_config: What timm says of a model's images; None of one of another library, for images in colour.

        Raises:
            ValueError: A size is not known.
        """
        channels, height, width = (data_config or {}).get("input_size", (3, None, None))
        if self.image_size is not None or height is None:
            height = width = self.known("image_size")
        return torch.zeros(self.known("size"), channels, height, width)

    def text(self, longest: int | None = None) -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` (size, length), full to the last token.

        Args:
            longest: Tokens that the backbone has positions for; None if it has no limit.

        Raises:
            ValueError: A size is not known, or rows are too long for the backbone.
        """
        size, length = self.known("size"), self.known("length")
        if longest is not None and length > longest:
            raise ValueError(f"`sequence_length` is {length}, but the backbone allows {longest}.")
        ids = torch.zeros(size, length, dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
