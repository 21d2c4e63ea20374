"""Where the labels of a batch are that count, found before the batch goes to its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asym_lightning.core.tokens import IGNORED

KEY = "label_positions"


def with_label_positions(batch: Any, *, first: int = 0) -> Any:
    """Add the places of labels to a batch; one that has them, or has no labels, is returned as it is.

    How many labels count is a question about numbers: asked on a GPU it waits for all that the GPU has been given to
    do, asked of a batch that has yet to get there it costs nothing.

    Args:
        batch: A dictionary with `labels` (rows, length), -100 where nothing is to be learnt.
        first: Column of the first label that is predicted.

    Returns:
        A batch with `label_positions` as well, of labels that lie one row after another from column `first` on.

    Example:
        >>> batch = {"labels": Tensor([[7, -100, 5], [-100, -100, 6]])}
        >>> with_label_positions(batch, first=1)["label_positions"]
        tensor([1, 3])
    """
    if not isinstance(batch, Mapping) or KEY in batch or not isinstance(batch.get("labels"), Tensor):
        return batch
    return {**batch, KEY: _positions(batch["labels"][:, first:])}


def label_positions(batch: Mapping[str, Any], *, first: int = 0) -> Tensor:
    """Return what :func:`with_label_positions` has added, or would add."""
    known: Tensor | None = batch.get(KEY)
    return _positions(batch["labels"][:, first:]) if known is None else known


def _positions(labels: Tensor) -> Tensor:
    positions = (labels.flatten() != IGNORED).nonzero().flatten()
    return positions.pin_memory() if labels.is_pinned() else positions
