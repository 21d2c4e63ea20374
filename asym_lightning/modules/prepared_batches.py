"""What is asked of a batch's numbers before it goes to its device."""

from __future__ import annotations

from abc import abstractmethod
from functools import wraps
from typing import Any

from lightning.pytorch import LightningModule


class PreparedBatches(LightningModule):
    """Prepares each batch while it is on the CPU.

    A question about numbers, such as how many labels count, waits on a GPU for all that the GPU has been given to do.
    Asked of a batch that has yet to get there it costs nothing.
    """

    @wraps(LightningModule.on_before_batch_transfer, assigned=())  # or Lightning warns of it beside any data module
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # type: ignore[override]
        """Prepare a batch."""
        return self.prepared(batch)

    @abstractmethod
    def prepared(self, batch: Any) -> Any:
        """Return a batch with what its step needs to know; one that has it, or is none of the task's, as it is."""
