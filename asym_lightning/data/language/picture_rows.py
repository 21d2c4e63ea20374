"""Rows and batches of conversations on pictures, as a model's processor has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.images.pillow import reading
from asym_lightning.data.language.picture_chats import PictureChat, label_tokens, picture_chat
from asym_lightning.data.tables.file_cells import file_of, name_of
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.padding import PadBatch

T = TypeVar("T")
CHARACTERS = 2000
"""What a picture counts as where rows of like length are put together."""


@dataclass(frozen=True)
class PictureRows(Dataset):
    """Conversations with their pictures, which are read row by row.

    Args:
        table: Where they are from.
        chats: The conversations.
        folder: What paths of pictures start from.
        processor: What makes a model's inputs of them.
        max_length: Longest sequence, in tokens; None cuts nothing.
    """

    table: TextTable
    chats: Sequence[PictureChat]
    folder: Path
    processor: Any
    max_length: int | None

    @classmethod
    def of(
        cls, table: TextTable, folder: Path, processor: Any, max_length: int | None, *, is_answered: bool
    ) -> PictureRows:
        """Read the conversations of a table, and look at their pictures.

        Raises:
            ValueError: If a record is no conversation, or a picture can't be read; the message says where.
        """
        chats = []
        for row in range(len(table)):
            record = {name: values[row] for name, values in table.columns.items()}
            try:
                chats.append(picture_chat(record, processor, is_answered=is_answered))
                for cell in chats[-1].images:
                    _opened(cell, folder, lambda image: None)
            except ValueError as error:
                raise ValueError(f"{table.where(row)}: {error}") from None
        return cls(table, chats, folder, processor, max_length)

    def __len__(self) -> int:
        return len(self.chats)

    def lengths(self) -> np.ndarray:
        """Return about how long each row is."""
        return np.array([sum(len(part.text) for part in c.parts) + CHARACTERS * len(c.images) for c in self.chats])

    def __getitem__(self, row: int) -> dict[str, Any]:
        chat = self.chats[row]
        text, beginning = "".join(part.text for part in chat.parts), self.processor.tokenizer.bos_token
        try:
            images = [_opened(cell, self.folder, lambda image: image.convert("RGB")) for cell in chat.images]
        except ValueError as error:  # of a picture that begins as it should, and is damaged further on
            raise ValueError(f"{self.table.where(row)}: {error}") from None
        has_beginning = bool(beginning) and text.startswith(beginning)  # a template may write it by itself
        inputs = self.processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=not has_beginning)
        tokens = inputs["input_ids"][0].numpy()
        end = len(tokens) if self.max_length is None else self.max_length
        if end < len(tokens) and (tokens[end:] == self._image_token).any():
            raise ValueError(f"{self.table.where(row)}: pictures go beyond the {end:,} tokens of `max_length`.")
        labels, prompt_length = label_tokens(chat, tokens, self.processor)
        if (labels != IGNORED).any() and (labels[:end] == IGNORED).all():
            raise ValueError(f"{self.table.where(row)}: what is asked fills the {end:,} tokens of `max_length`.")
        item: dict[str, Any] = {"input_ids": tokens[:end], "labels": labels[:end]}
        for name, value in inputs.items():
            if name not in ("input_ids", "attention_mask"):
                item[name] = value[0, :end].numpy() if value.shape == inputs["input_ids"].shape else value
        texts = {"source": chat.prompt, "reference": chat.reference}
        return {**item, "prompt_length": min(prompt_length, end), **texts, "row": row}

    @property
    def _image_token(self) -> int:
        return self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)


@dataclass(frozen=True)
class PictureBatch:
    """Collate rows: tokens are padded, and what a model takes of pictures stays by row.

    Args:
        pad: Collates what is no tensor.
    """

    pad: PadBatch

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch."""
        of_pictures = [name for name, value in rows[0].items() if isinstance(value, Tensor)]
        others = [{name: value for name, value in row.items() if name not in of_pictures} for row in rows]
        return {**self.pad(others), **{name: [row[name] for row in rows] for name in of_pictures}}


def _opened(cell: Any, folder: Path, read: Callable[[Image.Image], T]) -> T:
    """Open a picture, and return what is read of it.

    Raises:
        ValueError: If there is none, or it is damaged; the message names it.
    """
    file = file_of(cell, folder)
    with reading(name_of(cell) or "what is in `bytes`"), Image.open(file) as image:
        return read(image)
