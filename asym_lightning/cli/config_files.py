"""Config files by their paths, and what several of them say together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from asym_lightning.cli.short_config import with_init_args
from asym_lightning.core.messages import did_you_mean


def check_config_file(path: str) -> None:
    """Check that there is a config.

    Raises:
        FileNotFoundError: If there is none; the message names the nearest below `configs` or in the same folder.
    """
    if Path(path).is_file():
        return
    known = sorted({str(found) for found in (*Path("configs").rglob("*.yaml"), *Path(path).parent.glob("*.yaml"))})
    named = [found for found in known if Path(found).stem == Path(path).stem]  # `b_only_r8` for its overlay
    hint = f": did you mean {' or '.join(named[:2])}?" if named else did_you_mean(path, known, limit=3)
    raise FileNotFoundError(f"there is no config {path!r}{hint}")


def merged_config(paths: Sequence[str]) -> dict[str, Any]:
    """Return configs laid over one another, the last one winning, `model` and `data` in the long form.

    Raises:
        FileNotFoundError: If there is no such config.
        YAMLError: If one is not YAML.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        check_config_file(path)
        merged = _overlaid(merged, _long_form(yaml.safe_load(Path(path).read_text()) or {}))
    return merged


def _long_form(config: dict[str, Any]) -> dict[str, Any]:
    config = with_init_args(config)
    for section in ("model", "data"):
        value = config.get(section)
        if isinstance(value, dict) and not value.keys() & {"class_path", "init_args"}:  # an overlay in the short form
            config = {**config, section: {"init_args": value}}
    return config


def _overlaid(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _overlaid(below[key], value) if both else value
    return merged
