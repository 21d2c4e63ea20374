"""What other packages print that says nothing of a run, by name: tips, devices that no one asked for, deprecations."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LINES = re.compile(
    "|".join(
        [
            "💡 Tip: ",  # of other products
            "GPU available: False",
            "[TH]PU available: False",
            r"Loading `\w+` to estimate number of stepping batches",
            "Trainer already configured with model summary callbacks",
            r"The following callbacks returned in `LightningModule\.configure_callbacks` .* Trainer: PredictionsFile$",
            "predictions    ",  # which the command says at its end
            r"`Trainer\.fit` stopped: `max_(epochs|steps)=",  # what the user asked for
            r"\nDetected KeyboardInterrupt",  # the command says where it ended
        ]
    )
)
_WARNINGS = (
    "The dirpath has changed from",  # a resumed run has a folder of its own
    r"The number of training batches \(\d+\) is smaller than the logging interval",
)
_LIGHTNING = r"(lightning|pytorch_lightning)\."
_LOGGERS = ("lightning.pytorch", "lightning.fabric")
_PACKAGE = str(Path(__file__).parents[1])
_DEPENDENCIES = rf"{_LIGHTNING}|(torch|torchmetrics|torchvision|timm|transformers|datasets|jsonargparse)\."


@contextmanager
def hushed() -> Iterator[None]:
    """Leave out what is named above, and deprecations of what a dependency does itself, while the context lasts.

    Warnings are told by the module that they blame: one that blames the user's own is shown, whoever gives it.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    told = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    told.addFilter(_says_something)
    formatted = warnings.formatwarning
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message, module=_LIGHTNING)
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=_DEPENDENCIES)
            yield
    finally:
        warnings.formatwarning = formatted
        told.removeFilter(_says_something)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def show_plain_warnings() -> None:
    """Show what this package warns of as a sentence, without the line of its code, until the end of the context."""
    others = warnings.formatwarning  # Lightning's own, once it is imported

    def formatted(message: Warning | str, category: type[Warning], filename: str, *args: Any, **kwargs: Any) -> str:
        if str(filename).startswith(_PACKAGE):
            return f"warning: {message}\n"
        return others(message, category, filename, *args, **kwargs)

    warnings.formatwarning = formatted  # type: ignore[assignment]  # as the documentation of `warnings` says


def hush_own_folder(folder: str) -> None:
    """Leave out, until the end of the context, that a folder has checkpoints: it is that of the run that goes on."""
    message = rf"Checkpoint directory .*{re.escape(folder)}\b.* exists and is not empty"
    warnings.filterwarnings("ignore", message, module=_LIGHTNING)


def hush_progress() -> None:
    """Leave out everything on the way but warnings, until the end of the context, for `--quiet`."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _says_something(record: logging.LogRecord) -> bool:
    return not _LINES.match(record.getMessage())
