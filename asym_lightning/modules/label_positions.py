"""Where the labels of a batch are that count, found before the batch goes to its device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from torch import Tensor

from asym_lightning.core.tokens import IGNORED

KEY = "label_positions"


class LabelPositions(LightningModule):
    """Finds the labels that count while a batch is on the CPU.

    How many there are is a question about numbers: asked on a GPU it waits for all that the GPU has been given to do,
    asked of a batch that has yet to get there it costs nothing.

    Example:
        >>> LabelPositions().label_positions({"labels": Tensor([[7, -100, 5], [-100, -100, 6]])})
        tensor([0, 2, 5])
    """

    first_label: ClassVar[int] = 0
    """Column of the first label that is predicted."""

    @wraps(LightningModule.on_before_batch_transfer, assigned=())  # or Lightning warns of it beside any data module
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # type: ignore[override]
        """Add the places to a batch that has `labels` (rows, length), -100 where nothing is to be learnt."""
        if not isinstance(batch, Mapping) or KEY in batch or not isinstance(batch.get("labels"), Tensor):
            return batch
        return {**batch, KEY: self._find(batch["labels"])}

    def label_positions(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the places of labels, which lie one row after another from the first column on that is predicted."""
        known: Tensor | None = batch.get(KEY)
        return self._find(batch["labels"]) if known is None else known

    def _find(self, labels: Tensor) -> Tensor:
        positions = (labels[:, self.first_label :].flatten() != IGNORED).nonzero().flatten()
        return positions.pin_memory() if labels.is_pinned() else positions
