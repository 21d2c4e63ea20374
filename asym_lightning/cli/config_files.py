"""Configs by path or, those that come with the package, by name; and what several of them say together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asym_lightning
from asym_lightning.cli.short_config import with_init_args
from asym_lightning.core.kinds import check_fields
from asym_lightning.core.messages import did_you_mean
from asym_lightning.core.yaml_file import read_mapping

_PACKAGE = Path(asym_lightning.__file__).parent
# A wheel has them inside the package; a clone, which is installed with `-e`, beside it.
RECIPES = next((path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()), _PACKAGE)
_OPTIONS = ("-c", "--config")
_SECTIONS: Mapping[str, Any] = {
    "trainer": Mapping[str, Any] | None,
    "model": Mapping[str, Any] | str | None,
    "data": Mapping[str, Any] | str | None,
}


def recipes() -> dict[str, Path]:
    """The configs that come with the package, by name, tasks before what is laid over them.

    >>> recipes()["quickstart"].name, recipes()["adapters/lora_r8"].name
    ('quickstart.yaml', 'lora_r8.yaml')
    """
    found = {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in RECIPES.rglob("*.yaml")}
    return {name: found[name] for name in sorted(found, key=lambda name: (is_overlay(name), name))}


def is_overlay(name: str) -> bool:
    """Whether a recipe is laid over that of a task, by the folder that it is in."""
    return bool({"adapters", "strategies", "overlays"} & set(name.split("/")))


def config_path(name: str) -> Path:
    """The config of a name: a file, else one of :func:`recipes`, with or without `configs/` and `.yaml`.

    Raises:
        FileNotFoundError: If there is none; the message names the nearest.

    Example:
        >>> config_path("configs/quickstart.yaml").name == config_path("quickstart").name
        True
    """
    if os.path.lexists(name) and not os.path.isdir(name):
        return Path(name)
    known = recipes()
    asked = Path(name).as_posix().removeprefix("configs/").removesuffix(".yaml")
    if asked in known:
        return known[asked]
    files = {str(found) for found in (*Path("configs").rglob("*.yaml"), *Path(name).parent.glob("*.yaml"))}
    candidates = [*sorted(file for file in files if RECIPES not in Path(file).resolve().parents), *known]
    named = [found for found in candidates if Path(found).stem == Path(name).stem]  # `b_only_r8` for its overlay
    hint = f": did you mean {' or '.join(named[:2])}?" if named else did_you_mean(name, candidates, limit=3)
    raise FileNotFoundError(f"there is no config {name!r}{hint}")


def with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command, in which the names of recipes are paths; texts in place of files stay as they are.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    given: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option in _OPTIONS:
            given.append(f"{option}={_path_or_text(value)}")
        else:
            given.append(_path_or_text(argument) if given and given[-1] in _OPTIONS else argument)
    return given


def is_text(config: str) -> bool:
    """Whether a config is a text or an address in place of a file."""
    return any(sign in config for sign in (":", "\n"))


def _path_or_text(config: str) -> str:
    if is_text(config):
        return config
    path = config_path(config)
    read_config_file(path)  # to say what is wrong with it: who reads it later knows no file
    return str(path)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read a config, in which sections are what they may be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no keys and values, or a section of it does not; the message says in which line.
    """
    config = read_mapping(path)
    try:
        check_fields(f"`{path}`", config, _SECTIONS)
    except TypeError as error:
        raise ValueError(f"`{path}`: {error}") from error
    return config


def merged_config(paths: Sequence[str]) -> dict[str, Any]:
    """Return configs laid over one another, the last one winning, `model` and `data` in the long form.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If one holds no keys and values in YAML; the message says in which line.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _overlaid(merged, _long_form(read_config_file(config_path(path))))
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
