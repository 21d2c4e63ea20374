"""Configs of Hugging Face models, by name or from a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from asym_lightning.core.messages import did_you_mean, first_line


def pretrained_config(source: str, model_args: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """Read a model's config and change fields of it.

    Args:
        source: Name on the hub, or local folder with `config.json`.
        model_args: Fields that differ, such as `{"attention_dropout": 0.0}`.

    Raises:
        ValueError: If there is no such model, or its config lacks a field.
    """
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        message = f"there is no backbone {source!r}, on the hub or as a local folder: {first_line(error)}"
        raise ValueError(message) from error
    for name, value in (model_args or {}).items():
        if not hasattr(config, name):
            hint = did_you_mean(name, config.to_dict())
            raise ValueError(f"`model_args` {name!r} is no field of the config of {source!r}{hint}")
        setattr(config, name, value)
    return config
