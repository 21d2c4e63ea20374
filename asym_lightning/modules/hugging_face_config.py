"""The config that a Hugging Face model is built from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig


def read_config(source: str, model_args: Mapping[str, Any] | None = None) -> Any:
    """Return a model's config, some of its fields changed.

    Args:
        source: Name on the hub, or local folder with `config.json`.
        model_args: Fields that differ, such as `{"hidden_dropout_prob": 0.0}`.

    Raises:
        ValueError: If there is no such model, or its config lacks a field; the message suggests the nearest.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"there is no backbone {source!r}, on the hub or as a local folder: {first_line(error)}"
        ) from error
    for name, value in (model_args or {}).items():
        if not hasattr(config, name):
            nearest = difflib.get_close_matches(name, list(config.to_dict()), n=1)
            hint = f": did you mean {nearest[0]}?" if nearest else "."
            raise ValueError(f"`model_args` {name!r} is no field of the config of {source!r}{hint}")
        setattr(config, name, value)
    return config


def first_line(error: Exception) -> str:
    r"""Return the first line of an error, which says what the others explain.

    >>> first_line(ValueError("No weights.\nMake sure that ..."))
    'No weights.'
    """
    return str(error).strip().splitlines()[0]
