"""YAML files, which may come from anybody: what is wrong is said by file and line, nothing unfolds without end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from asym_lightning.core.messages import shown

EXPECTED = "keys and values, such as `trainer:`"
# The largest config of this package has some hundred values.
_VARIABLE = re.compile(r"\$\{[A-Za-z_][\w.:,]*\}")
_MAX_BYTES, _MAX_VALUES, _MAX_DEPTH = 10_000_000, 100_000, 500


def read_mapping(path: str | Path, expected: str = EXPECTED) -> dict[str, Any]:
    """Read a file of keys and values; an empty one has none.

    Args:
        path: The file.
        expected: What a message says that it should hold.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, or no mapping of texts, or it unfolds to more than any config is.
    """
    where = f"`{path}`"
    value = _parsed(_text_of(Path(path), where), where)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds {shown(value)}: it should hold {expected}.")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{where} has the key {shown(key)}, which is no text: it should hold {expected}.")
    return value


def check_unfolding(text: str, where: str) -> None:
    """Check how much a YAML text holds once its aliases are followed, without following them.

    Args:
        text: Any YAML.
        where: What a message calls it.

    Raises:
        YAMLError: It is none.
        ValueError: It unfolds to more than any config is, or without end, or has a key twice.

    Example:
        >>> check_unfolding("a: &a [*a]", "`mine.yaml`")
        Traceback (most recent call last):
        ValueError: `mine.yaml`, line 1: what is named here holds itself.
    """
    if _depth_of_brackets(text) > _MAX_DEPTH:  # on which the reader would spend the square of their number
        raise ValueError(f"{where} is nested too deep for a config.")
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is not None:
            _count(root, where, {}, set())
    except RecursionError:
        raise ValueError(f"{where} is nested too deep for a config.") from None


def _depth_of_brackets(text: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _text_of(path: Path, where: str) -> str:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {where}.")
    if not path.is_file():
        raise ValueError(f"{where} is no file.")  # a pipe, from which nothing may ever come
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{where} is larger than any config, {path.stat().st_size / 1e6:.0f} MB.")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{where}, line {line}: this is no text in UTF-8 (byte {data[error.start]:#x}).") from error


def _parsed(text: str, where: str) -> Any:
    try:
        check_unfolding(text, where)
        return _loaded(text, where)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{where}{line}: {' '.join(str(error.problem).split())}.") from error
    except yaml.reader.ReaderError as error:
        line = f", line {text[: error.position].count(chr(10)) + 1}"
        raise ValueError(f"{where}{line}: a character that no text has ({error.character:#x}).") from error


def _loaded(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # of a date that is none, say
        raise ValueError(f"{where} has a value that can't be read ({error}).") from error


def _count(node: yaml.Node, where: str, counted: dict[int, int], above: set[int]) -> int:
    """Number of values that a node unfolds to, its aliases followed."""
    if id(node) in above:
        raise ValueError(f"{where}, line {node.start_mark.line + 1}: what is named here holds itself.")
    if id(node) not in counted:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.ScalarNode) and (variable := _VARIABLE.search(node.value)):
            raise ValueError(
                f"{where}, line {node.start_mark.line + 1}: `{variable[0]}` would stay as it is, for variables are not "
                "filled in here; write its value, or give that option on the command line, where the shell fills it in."
            )
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, where)
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = list(node.value)
        counted[id(node)] = 1 + sum(_count(part, where, counted, above | {id(node)}) for part in parts)
        if counted[id(node)] > _MAX_VALUES:
            raise ValueError(
                f"{where}, line {node.start_mark.line + 1}: this unfolds to more than {_MAX_VALUES:,} values, which no "
                "config can need."
            )
    return counted[id(node)]


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    """Refuse a key that is there twice, of which YAML would silently take the last."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise ValueError(
                    f"{where}, line {key.start_mark.line + 1}: `{key.value}` is here for the second time; put what "
                    "belongs to it in one place."
                )
            seen.add(key.value)
