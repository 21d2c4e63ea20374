"""Options that are null and may not be: jsonargparse takes null for any option of a class."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

from asym_lightning.cli.errors import PLAIN_TYPES


def check_nulls(section: str, config: Any) -> None:
    """Check that numbers, texts and truth values of a class are there.

    Args:
        section: Where the class is in the config.
        config: Its `class_path` and `init_args`; anything else is not checked.

    Raises:
        ValueError: If one is null whose type is a plain one, without null.

    Example:
        >>> check_nulls("data", {"class_path": "asym_lightning.data.DigitsDataModule", "init_args": {"seed": None}})
        Traceback (most recent call last):
        ValueError: `data.seed` must be an integer, not null.
    """
    if not config or not config.get("class_path"):
        return
    found: Any = pydoc.locate(config["class_path"])
    parameters = inspect.signature(found).parameters if callable(found) else {}
    for option, value in dict(config.get("init_args") or {}).items():
        # A default of None makes a type without null one with it, as `width: int = None` is often written.
        if value is None and option in parameters and parameters[option].default is not None:
            annotation = parameters[option].annotation  # its text, where the class' module postpones annotations
            kind = PLAIN_TYPES.get(getattr(annotation, "__name__", annotation))
            if kind is not None:
                raise ValueError(f"`{section}.{option}` must be {kind}, not null.")
