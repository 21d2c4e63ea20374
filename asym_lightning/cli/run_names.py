"""Names that become folders of runs: of tasks, and in configs, where they lead to no other place than the run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asym_lightning.cli.config_files import is_text
from asym_lightning.core.messages import shown

_NAMES = ("name", "version", "sub_dir", "prefix")
_LONGEST = 200  # of the 255 bytes that file systems allow


def run_name(configs: Sequence[str]) -> str:
    """What the runs of a task are called where its config does not say so: as its config is, the first that is named.

    >>> run_name(["mine/images.yaml", "adapters/lora_r8"]), run_name([])
    ('images', 'default')
    """
    named = [Path(config).stem for config in configs if not is_text(config)]
    return named[0] if named and _is_within(named[0]) else "default"


def check_run_names(trainer: Mapping[str, Any]) -> None:
    """Check that names of loggers stay within the loggers' `save_dir`.

    Args:
        trainer: The Trainer's options as they are in a config.

    Raises:
        ValueError: If one leads out of it, or is too long for a folder.

    Example:
        >>> check_run_names({"logger": {"init_args": {"name": "../../elsewhere"}}})
        Traceback (most recent call last):
        ValueError: `trainer.logger.name` must be a name within `save_dir`, without `..`, not '../../elsewhere'.
    """
    given = trainer.get("logger")
    for logger in given if isinstance(given, list) else [given]:
        arguments: Any = logger.get("init_args") if isinstance(logger, Mapping) else None
        for option in _NAMES:
            name = (arguments or {}).get(option)
            if isinstance(name, str) and not _is_within(name):
                raise ValueError(
                    f"`trainer.logger.{option}` must be a name within `save_dir`, without `..`, not {shown(name)}."
                )


def _is_within(name: str) -> bool:
    path = Path(name)
    is_named = all(part != ".." and len(part.encode(errors="replace")) <= _LONGEST for part in path.parts)
    return is_named and not path.is_absolute() and name.isprintable()
