"""Configs of Hugging Face models, by name or from a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import AutoConfig, PretrainedConfig

from asym_lightning.core.messages import did_you_mean, first_line, shown


def pretrained_config(source: str, model_args: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """Read a model's config and change fields of it.

    Args:
        source: Name on the hub, or local folder with `config.json`.
        model_args: Fields that differ, such as `{"attention_dropout": 0.0}`.

    Raises:
        ValueError: If there is no such model, or its config lacks a field.
    """
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # of any kind: what is in the file goes straight into a constructor
        message = f"there is no backbone {shown(source)}, on the hub or as a local folder: {first_line(error)[:120]}"
        raise ValueError(message) from error
    for name, value in (model_args or {}).items():
        if not hasattr(config, name):
            hint = did_you_mean(name, config.to_dict())
            raise ValueError(f"`model_args` {name!r} is no field of the config of {source!r}{hint}")
        try:
            setattr(config, name, value)
        except Exception as error:  # of the config's own checks
            why = first_line(error)[:120]
            raise ValueError(f"`model_args` {name}: {shown(value)} does not suit {source!r}: {why}") from error
    return config


def check_weights_fit(source: str, model: nn.Module, loading: Mapping[str, Any]) -> None:
    """Check that the weights that were read are those of the model, but for a head.

    Args:
        source: Where they are from.
        model: The model.
        loading: What `from_pretrained` says of keys that are missing, or of another shape.

    Raises:
        ValueError: If most are not.
    """
    mismatched = {key if isinstance(key, str) else key[0] for key in loading.get("mismatched_keys", ())}
    missing = {*loading["missing_keys"], *mismatched}
    num_missing = sum(parameter.numel() for name, parameter in model.named_parameters() if name in missing)
    total = sum(parameter.numel() for parameter in model.parameters())
    if num_missing > total / 2:
        raise ValueError(
            f"the weights of {source!r} are not those of a {type(model).__name__}: {num_missing:,} of its {total:,} "
            "parameters are not among them."
        )
