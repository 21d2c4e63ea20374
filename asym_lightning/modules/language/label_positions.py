"""Where the labels of a batch are that count, found before the batch goes to its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from asym_lightning.core.tokens import IGNORED
from asym_lightning.modules.prepared_batches import PreparedBatches

KEY = "label_positions"


class LabelPositions(PreparedBatches):
    """Finds the labels that count while a batch is on the CPU.

    Example:
        >>> LabelPositions().label_positions({"labels": Tensor([[7, -100, 5], [-100, -100, 6]])})
        tensor([0, 2, 5])
    """

    first_label: ClassVar[int] = 0
    """Column of the first label that is predicted."""

    def prepared(self, batch: Any) -> Any:
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
