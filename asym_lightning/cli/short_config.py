"""Configs in the short form, in which a class's arguments stand beside its name.

    model:
      class_path: ImageClassifier        model:
      init_args:                   or      class_path: ImageClassifier
        backbone: vit_digits               backbone: vit_digits

Both mean the same. The short form is for the two classes that every config names, `model` and `data`, below the name of
a command too, and in a file that is given for one of them.
"""

from __future__ import annotations

from typing import Any

from jsonargparse import get_loader, set_loader
from yaml import YAMLError

from asym_lightning.cli.class_names import class_path, import_named
from asym_lightning.cli.commands import TRAINING
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
    if _names_class_of_ours(config):
        return _long_form(config)
    rewrite = {"model": _long_form, "data": _long_form, **dict.fromkeys(TRAINING, with_init_args)}
    return {key: rewrite[key](value) if key in rewrite else value for key, value in config.items()}


def _names_class_of_ours(config: dict[str, Any]) -> bool:
    """Whether a config is a model's or data's own: of other classes arguments don't stand beside the name."""
    named = str(config.get("class_path", "")).rpartition(".")
    return any(class_path(key, named[2]) is not None for key in ("model", "data"))


def _long_form(value: Any) -> Any:
    if not isinstance(value, dict) or "class_path" not in value or value.keys() <= _LONG_KEYS:
        return value  # without a class_path it is an overlay, which jsonargparse merges as it is
    beside = {key: argument for key, argument in value.items() if key not in _LONG_KEYS}
    rest = {key: argument for key, argument in value.items() if key in _LONG_KEYS}
    return {**rest, "init_args": {**rest.get("init_args", {}), **beside}}


def _load(text: str) -> Any:
    check_unfolding(text, "a value")
    import_named(text)
    return with_init_args(get_loader("yaml")(text))


set_loader(SHORT_CONFIG, _load, exceptions=(YAMLError,))
