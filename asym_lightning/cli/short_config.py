"""Configs in the short form, in which a class's arguments stand beside its name.

    model:
      class_path: ImageClassifier        model:
      init_args:                   or      class_path: ImageClassifier
        backbone: vit_digits               backbone: vit_digits

Both mean the same. The short form is for the two classes that every config names, `model` and `data`.
"""

from __future__ import annotations

from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

from asym_lightning.cli.class_names import import_named
from asym_lightning.core.yaml_file import check_unfolding

SHORT_CONFIG = "short-config"
_LONG_KEYS = {"class_path", "init_args", "dict_kwargs"}


def with_init_args(config: Any) -> Any:
    """Rewrite `model` and `data` of a config to the form that jsonargparse reads.

    >>> with_init_args({"model": {"class_path": "ImageClassifier", "num_classes": 10}, "trainer": {}})
    {'model': {'class_path': 'ImageClassifier', 'init_args': {'num_classes': 10}}, 'trainer': {}}
    """
    if not isinstance(config, dict):
        return config
    return {key: _long_form(value) if key in ("model", "data") else value for key, value in config.items()}


def _long_form(value: Any) -> Any:
    if not isinstance(value, dict) or "class_path" not in value or value.keys() <= _LONG_KEYS:
        return value  # without a class_path it is an overlay, which jsonargparse merges as it is
    beside = {key: argument for key, argument in value.items() if key not in _LONG_KEYS}
    rest = {key: argument for key, argument in value.items() if key in _LONG_KEYS}
    return {**rest, "init_args": {**rest.get("init_args", {}), **beside}}


def _load(text: str) -> Any:
    if "*" in text:  # of an alias
        check_unfolding(text, "a value")
    import_named(text)
    return with_init_args(get_loader("yaml")(text))


set_loader(SHORT_CONFIG, _load, exceptions=(YAMLError,))
