"""Ranges of the options that are Lightning's own, and of numbers wherever they are in a config.

Those of this package's classes are in their signatures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from asym_lightning.core.kinds import Count, Fraction, NotNegative, NumberOrZero, Range, Seed, check_fields, check_value

_MAX_THREADS = max(os.cpu_count() or 1, 256)
_FROM_MINUS_ONE = Annotated[int, Range(-1)]  # which means all, or without end
_COMMON: Mapping[str, Any] = {
    "seed_everything": Seed | bool,
    "num_threads": Annotated[int, Range(1, _MAX_THREADS)] | None,
}
_TRAINER: Mapping[str, Any] = {
    "num_nodes": Count,
    "fast_dev_run": NumberOrZero | bool,
    "max_epochs": _FROM_MINUS_ONE | None,
    "min_epochs": NumberOrZero | None,
    "max_steps": _FROM_MINUS_ONE,
    "min_steps": NumberOrZero | None,
    "accumulate_grad_batches": Count,
    "limit_train_batches": NumberOrZero | Fraction | None,
    "limit_val_batches": NumberOrZero | Fraction | None,
    "limit_test_batches": NumberOrZero | Fraction | None,
    "limit_predict_batches": NumberOrZero | Fraction | None,
    "overfit_batches": NumberOrZero | Fraction,
    "check_val_every_n_epoch": Count | None,
    "val_check_interval": Count | Annotated[float, Range(0, 1, is_open_below=True)] | str | Mapping[str, Any] | None,
    "num_sanity_val_steps": _FROM_MINUS_ONE | None,
    "log_every_n_steps": NumberOrZero | None,
    "gradient_clip_val": NotNegative | None,
    "gradient_clip_algorithm": Literal["value", "norm"] | None,
    "reload_dataloaders_every_n_epochs": NumberOrZero,
}


def check_ranges(options: Mapping[str, Any]) -> None:
    """Check numbers of a command's options.

    Args:
        options: The options as they are in a config, those of the Trainer under `trainer`.

    Raises:
        ValueError: If one is out of range, infinite or no number; the message names it in full.
        TypeError: If one is no number.

    Example:
        >>> check_ranges({"trainer": {"max_epochs": -3}})
        Traceback (most recent call last):
        ValueError: `trainer.max_epochs` must be at least -1 or null, not -3.
        >>> check_ranges({"trainer": {"limit_train_batches": 2.0}})  # two batches, as Lightning has it
    """
    check_fields("the config", options, _COMMON)
    # Which of the number types of such an option comes first depends on what was imported first: 2 may arrive as 2.0.
    trainer = {
        name: int(value)
        if isinstance(value, float) and value.is_integer() and Fraction in get_args(_TRAINER[name])
        else value
        for name, value in (options.get("trainer") or {}).items()
        if name in _TRAINER
    }
    check_fields("`trainer`", trainer, _TRAINER, prefix="trainer.")
    _check_numbers(options, "")


def _check_numbers(value: Any, place: str) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        check_value(place, value, type(value))
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _check_numbers(part, f"{place}.{key}".lstrip(".").replace(".init_args.", "."))
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            _check_numbers(part, f"{place}[{number}]")
