"""Options of the classes that a config names, by their full names, before the classes are made."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any

from asym_lightning.core.kinds import check_value
from asym_lightning.core.options import annotations_of


def check_options_of(section: str, config: Any) -> None:
    """Check that options of a class are in their ranges, and null only where that is allowed.

    jsonargparse takes null for any option, and knows no ranges; the class knows no section.

    Args:
        section: Where the class is in the config.
        config: Its `class_path` and `init_args`; anything else is not checked.

    Raises:
        ValueError: If one is not what its annotation says.

    Example:
        >>> options = {"seed": None}
        >>> check_options_of("data", {"class_path": "asym_lightning.data.DigitsDataModule", "init_args": options})
        Traceback (most recent call last):
        ValueError: `data.seed` must be an integer, not null.
    """
    if not config or not config.get("class_path"):
        return
    found: Any = pydoc.locate(config["class_path"])
    if not inspect.isclass(found):
        return
    parameters = inspect.signature(found).parameters
    annotations: dict[str, Any] = annotations_of(found)  # type: ignore[arg-type]  # to mypy no type has a hash
    for option, value in dict(config.get("init_args") or {}).items():
        # A default of None makes a type without null one with it, as `width: int = None` is often written.
        is_left_out = value is None and option in parameters and parameters[option].default is None
        if option in annotations and not is_left_out:
            try:
                check_value(f"{section}.{option}", value, annotations[option])
            except TypeError as error:
                raise ValueError(str(error)) from error
