"""One sentence for what went wrong, in place of jsonargparse's nested report or a traceback."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from asym_lightning.cli.class_names import class_names, class_path
from asym_lightning.cli.option_names import top_level_options, unknown_option
from asym_lightning.cli.signatures import signature
from asym_lightning.core.files import REFUSALS
from asym_lightning.core.messages import did_you_mean, printable, shortened
from asym_lightning.core.run_files import ADAPTER_CONFIG, RUNS, find_checkpoints, is_run

KEY = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)')
CLASS = re.compile(r"Problem with given class_path '(?P<class>[^']+)':\s*(?P<rest>.*)")
CLASS_IN_VALUE = re.compile(r"class_path='(?P<class>[^']+)'")
UNKNOWN_OPTION = re.compile(
    r"(?:(?:[Oo]ption|Key) ['\"]|[Uu]nrecognized arguments: --)(?P<name>[\w.-]+)(?:['\"] is not|['\"]$|\b)"
)
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
WRONG_TYPE = re.compile(r"Expected an? (?P<type><class '[\w.]+'>|typing\.\S.*?)(?:\. Got value: (?P<value>.*))?$")
GIVEN = re.compile(r"Given value: (?P<value>.*)")
HEADINGS = ("Does not validate against", "Subtypes:", "Errors:", "Given value type:", "Given value:")
# Branches of a union that were tried in vain and say nothing about what was meant.
UNTRIED = ("Expected a <class 'NoneType'>", "Expected a path but", "Cannot instantiate typing.")
PLAIN_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null",
    "collections.abc.Sequence": "a list", "collections.abc.Mapping": "a mapping"}  # fmt: skip


def one_sentence(error: BaseException) -> str:
    """Return the sentence to show for an error, with the offender's name and the nearest valid one.

    >>> one_sentence(ValueError("`rank` must be at least 1, got 0."))
    '`rank` must be at least 1, got 0.'
    >>> one_sentence(argparse.ArgumentError(None, "unrecognized arguments: --trainer.max_epocs 3"))
    "the command has no option 'trainer.max_epocs': did you mean trainer.max_epochs?"
    """
    text = str(error).strip()
    if not text:
        return f"{type(error).__name__}, which says no more; `--debug` shows where."
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return shortened(printable(_of_system(error)))
    is_report = isinstance(error, argparse.ArgumentError) or any(heading in text for heading in HEADINGS)
    return shortened(printable(_explain(text) if is_report else " ".join(text.split())))


def _of_system(error: OSError) -> str:
    """What the operating system would not do, with the file or folder that it was about."""
    reason = str(error.strerror)
    if error.errno in REFUSALS and not _is_about_reading(error):
        where = f"`{str(error.filename)[-100:]}`" if error.filename else "a file"
        return (
            f"{where} can't be written to: {REFUSALS[error.errno]}. What was saved before is whole, and "
            "`--ckpt_path last` goes on from the last checkpoint."
        )
    if error.filename is None:
        return f"the system refused: {reason.lower()}."
    return f"`{str(error.filename)[-150:]}` can't be used: {reason[:1].lower()}{reason[1:]}."


def _is_about_reading(error: OSError) -> bool:
    """Whether a permission is lacking for what exists, which is asked for it where it is read."""
    if error.errno not in (errno.EACCES, errno.EPERM) or not os.path.exists(error.filename or ""):
        return False
    return not os.path.isdir(error.filename) or not os.access(error.filename, os.R_OK | os.X_OK)


def check_checkpoint(path: str | None, strategy: str = "", *, is_to_go_on: bool = False) -> None:
    """Check that a checkpoint path leads to a checkpoint, before anything is built.

    Args:
        path: A file or folder, or None or one of Lightning's words, which are not checked.
        strategy: The strategy that is going to read it.
        is_to_go_on: Whether training is to go on from it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, or the folder is one of shards that the strategy can't read.
    """
    if path is None or path in ("best", "last", "hpc") or "://" in path or path.startswith("registry"):
        return
    file = Path(path)
    if not file.exists():
        known = [str(found) for found in find_checkpoints(RUNS)]
        raise FileNotFoundError(f"there is no checkpoint {path!r}{did_you_mean(path, known, limit=3)}")
    if is_run(file):
        return  # which of its checkpoints is said by the run's folder
    is_adapter = (file / ADAPTER_CONFIG).is_file()
    if is_adapter and is_to_go_on:
        raise ValueError(
            f"{path!r} is an adapter, which lacks what training goes on from: give a checkpoint of its run."
        )
    if file.is_dir() and not is_adapter and "FSDP2Strategy" not in strategy:
        raise ValueError(
            f"{path!r} is a folder, as FSDP2 writes it with `save_distributed_checkpoint: true`: resume it with "
            "configs/strategies/fsdp2.yaml, on any number of devices."
        )
    if not file.is_dir():
        from asym_lightning.lifecycle.checkpoint_file import read_checkpoint  # torch, which other errors do without

        read_checkpoint(file, is_to_go_on=is_to_go_on)


@dataclass(frozen=True)
class _Finding:
    """A line of the report that says something, with the keys and the class above it."""

    text: str
    depth: int
    keys: tuple[str, ...]
    class_path: str | None

    @property
    def place(self) -> str:
        return f"`{'.'.join(self.keys)}`" if self.keys else "the command"


def _explain(report: str) -> str:
    """Turn jsonargparse's report, a tree with a branch for each type that was tried, into a sentence.

    The deepest line says most: the branches that fit less well end earlier. Of equals one that asks for a class does.
    """
    if report.startswith("Problems parsing config"):  # the YAML parser's own words, over several lines
        return " ".join(report.split())
    findings = list(_findings(report))
    telling = [finding for finding in findings if not finding.text.startswith(UNTRIED)]
    if not telling:
        return " ".join(report.split())
    deepest = max(telling, key=lambda finding: (finding.depth, bool(UNKNOWN_CLASS.search(finding.text))))
    match = WRONG_TYPE.match(deepest.text)
    if not match:
        return _sentence(deepest)
    siblings = [WRONG_TYPE.match(finding.text) for finding in findings if finding.depth == deepest.depth]
    names = dict.fromkeys(_type_name(sibling["type"]) for sibling in siblings if sibling)
    types = " or ".join(sorted(names, key=lambda name: name == "null"))  # null last: it is seldom what was meant
    given = match["value"] or (found["value"] if (found := GIVEN.search(report)) else "what was given")
    return f"{deepest.place} must be {types}, not {'null' if given == 'None' else repr(given)}."


def _as_value(key: str, name: str) -> str | None:
    """The end of a sentence on what is no class, but a value of an argument that one of the classes has."""
    for known in class_names(key):
        found = signature(class_path(key, known) or "")
        for argument, described in (found.arguments if found else {}).items():
            if described.annotation.startswith("Literal") and repr(name) in described.annotation:
                return f": it is a `{argument}` of {known}, as in `--{key}.{argument} {name}`."
    return None


def _findings(report: str) -> Iterator[_Finding]:
    above: list[tuple[int, str, str]] = []  # (indent, "key" or "class", value), outermost first
    for line in filter(str.strip, report.splitlines()):
        text = line.strip().removeprefix("- ")
        indent = len(line) - len(text)
        above = [entry for entry in above if entry[0] < indent]
        for kind, pattern in (("key", KEY), ("class", CLASS)):
            if match := pattern.match(text):
                above.append((indent, kind, match[kind]))
                text = match["rest"]
        if text and not text.startswith(HEADINGS):
            keys = tuple(value for _, kind, value in above if kind == "key")
            classes = [value for _, kind, value in above if kind == "class"]
            yield _Finding(text, indent, keys, classes[-1] if classes else None)


def _sentence(finding: _Finding) -> str:
    if match := UNKNOWN_CLASS.search(finding.text):
        key = ".".join(finding.keys)
        known = class_names(key)
        hint = did_you_mean(match["name"], known) if known else "."  # of a key whose classes are not known here
        hint = _as_value(key, match["name"]) or hint
        return f"{finding.place} names no class {match['name']!r}{hint}"
    if match := UNKNOWN_OPTION.search(finding.text):
        in_value = CLASS_IN_VALUE.search(finding.text)
        class_path = in_value["class"] if in_value else finding.class_path
        known = _arguments(class_path) if class_path else top_level_options()
        return str(unknown_option(finding.keys, match["name"], known))
    return f"{finding.place}: {finding.text}" if finding.keys else finding.text


def _type_name(annotation: str) -> str:
    if annotation.startswith("typing.Literal["):
        return "one of " + annotation.removeprefix("typing.Literal[").removesuffix("]").replace("'", "")
    name = annotation.removeprefix("<class '").removesuffix("'>")
    return PLAIN_TYPES.get(name, name)


def _arguments(class_path: str) -> list[str]:
    """Names of a class's arguments, and of what option objects among them hold, such as `loader.batch_size`."""
    module, _, name = class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    try:
        annotations = get_type_hints(found.__init__)
    except NameError:  # of names that are imported for type checkers alone
        annotations = {}
    nested = [
        f"{argument}.{field.name}"
        for argument, annotation in annotations.items()
        for kind in (annotation, *get_args(annotation))
        if dataclasses.is_dataclass(kind)
        for field in dataclasses.fields(kind)
    ]
    return [*inspect.signature(found).parameters, *nested]
