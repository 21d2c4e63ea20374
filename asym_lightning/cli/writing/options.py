"""The options that `generate` and `chat` have in common: what writes, and how."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from asym_lightning.cli.signatures import explanations, signature
from asym_lightning.cli.usage import ToolParser, UsageError
from asym_lightning.core.messages import check_choice, shown

DECODING = "asym_lightning.modules.language.decoding.Decoding"
TEMPLATES = ("alpaca", "chat", "none")
BASE = "base"
"""What stands for no adapter in the place of an adapter's name."""
PRECISIONS = ("float32", "bfloat16", "float16")


def source_parser(command: str, description: str, templates: Sequence[str] = TEMPLATES) -> argparse.ArgumentParser:
    """Return a parser of a source, of adapters by name, of a template, one of some, and of decoding."""
    parser = ToolParser(command, description=description)
    parser.add_argument(
        "source", metavar="SOURCE", help="run directory, adapter directory, folder of a model, or name on the hub"
    )
    parser.add_argument("--base", metavar="MODEL", help="base model of an adapter directory; default: as it says")
    parser.add_argument("--checkpoint", metavar="CKPT", help="checkpoint of a run; default: the best one")
    parser.add_argument(
        "--adapter", action="append", default=[], type=_named, metavar="NAME=DIR",
        help="a further adapter, and its name; may be repeated",
    )  # fmt: skip
    parser.add_argument("--use", metavar="NAME", help="adapter to write with: a name, or `base` for none")
    parser.add_argument(
        "--template", choices=templates, help="form of prompts; default: that of the run, else the tokenizer's `chat`"
    )
    parser.add_argument("--device", default="auto", help="such as cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument("--dtype", choices=PRECISIONS, help="of the base model's weights; default: the model's own")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: 0)")
    _add_decoding(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def decoding_options(options: argparse.Namespace) -> dict[str, Any]:
    """What was said of decoding, by the names of `Decoding`'s fields."""
    return {name: value for name in _fields() if (value := getattr(options, name)) is not None}


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding", "what is not said here is as the run has it")
    explained = explanations(DECODING)
    for name, is_switch in _fields().items():
        kind: dict[str, Any] = (
            {"action": argparse.BooleanOptionalAction} if is_switch else {"type": number, "metavar": "N"}
        )
        told = explained[name].rstrip(".")
        group.add_argument(f"--{name.replace('_', '-')}", default=None, help=told[0].lower() + told[1:], **kind)


def _fields() -> dict[str, bool]:
    """Names of `Decoding`'s fields, read without importing it, and whether each is a switch."""
    found = signature(DECODING)
    assert found is not None
    return {name: argument.annotation == "bool" for name, argument in found.arguments.items()}


def number(text: str) -> int | float:
    """Return what a text says; `argparse` names this function where it says nothing."""
    return float(text) if set(text) & set(".en") else int(text)


def _named(text: str) -> tuple[str, str]:
    name, equals, directory = text.partition("=")
    if not (name and equals and directory):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not NAME=DIR")
    return name, directory


def named_directories(options: argparse.Namespace) -> dict[str, str]:
    """Directories of the adapters that were given names.

    Raises:
        UsageError: A name was given twice, or is taken.
    """
    names = [name for name, _ in options.adapter]
    for name in names:
        if name == BASE or names.count(name) > 1:
            why = "stands for no adapter" if name == BASE else "is given twice"
            raise UsageError(f"the adapter's name {shown(name)} {why}: choose another.")
    return dict(options.adapter)


def adapter_names(options: argparse.Namespace) -> list[str]:
    """Names by which adapters can be chosen, `base` among them.

    Raises:
        UsageError: A name was given twice, or is taken.
        ValueError: The one to use is none of them.
    """
    names = [*named_directories(options), BASE]
    if options.use is not None:
        check_choice("--use", options.use, names)
    return names
