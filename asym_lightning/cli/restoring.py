"""What goes wrong while a checkpoint is restored, told as what is wrong with the checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from asym_lightning.core.messages import first_line

# Where states are handed out to those that wrote them: Lightning's own of loops, callbacks and optimizers, and ours.
_RESTORING = ("lightning.pytorch.trainer.connectors.checkpoint_connector", "asym_lightning.lifecycle.place")


@contextmanager
def restoring(checkpoint: str | None) -> Iterator[None]:
    """Name the checkpoint, if there is one, where what is in it can't be restored.

    Raises:
        ValueError: If it can't be; the message says why.
    """
    try:
        yield
    except Exception as error:
        frames = traceback.walk_tb(error.__traceback__)
        if checkpoint is None or not any(frame.f_globals.get("__name__") in _RESTORING for frame, _ in frames):
            raise
        if isinstance(error, (ValueError, FileNotFoundError)) and "checkpoint" in str(error):
            raise
        kind = "" if isinstance(error, (ValueError, RuntimeError)) else f"{type(error).__name__}: "
        raise ValueError(
            f"`{checkpoint}` can't be restored: it is damaged, or of another model or trainer "
            f"({kind}{first_line(error)[:100]})."
        ) from error
