"""What the program answers before torch and Lightning are imported, which takes seconds: help texts and wrong usage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asym_lightning.cli.commands import TOOLS, TRAINING
from asym_lightning.cli.config_files import recipes
from asym_lightning.cli.given import Given
from asym_lightning.cli.help import VERSION, asked_help, program_help
from asym_lightning.cli.option_names import check_option_names
from asym_lightning.cli.usage import UsageError
from asym_lightning.core.messages import did_you_mean

QUICKSTART = "--config quickstart"
_BEFORE_COMMAND = ("-c", "--config", "--print_config")  # they may stand before a training command
_SHOWING = ("help", "print_config")  # they need no task


def first_answer(arguments: Sequence[str]) -> str | None:
    """Return the text that a command line asks for; None if there is something to run.

    Args:
        arguments: What follows the name of the program, unless it is one of `TOOLS`.

    Raises:
        UsageError: If there is no such command or option, something belongs to no option, or no task is named.
        FileNotFoundError: If there is no such config.

    Example:
        >>> print(first_answer(["fit", "--help"]).splitlines()[0])
        usage: lightning fit --config FILE [--config FILE ...] [--OPTION VALUE ...]
    """
    commands = [*TRAINING, *TOOLS]
    if not arguments:
        raise UsageError(
            f"name a command: {', '.join(commands)}; to begin, `lightning fit {QUICKSTART}`, or see `lightning --help`."
        )
    command, *rest = arguments
    if command in ("-h", "--help"):
        return program_help()
    if command == "--version":
        return VERSION
    if command in TRAINING:
        given = Given.parse(rest)
        text = asked_help(command, given)
        if text is None:
            check_given(command, given)
        return text
    if command.partition("=")[0] in _BEFORE_COMMAND:
        return None
    kind, known = ("option", ["--help", "--version"]) if command.startswith("-") else ("command", commands)
    raise UsageError(f"there is no {kind} {command!r}{did_you_mean(command, known, limit=len(known))}")


def check_given(command: str, given: Given) -> None:
    """Check that what is given names a task, and options that there are.

    Raises:
        UsageError: If it does not.
        FileNotFoundError: If there is no such config.
        ValueError: If a config holds no keys and values.
    """
    if not given.options and not given.stray:
        raise UsageError(
            f"`{command}` needs a task: `lightning {command} {QUICKSTART}`, or another of `asym-lightning configs`; "
            f"`lightning {command} --help` shows the options."
        )
    for text in given.stray:
        hint = f": did you mean --config {text}?" if text.endswith((".yaml", ".yml")) or text in recipes() else "."
        raise UsageError(f"{text!r} belongs to no option{hint}")
    check_option_names(command, given)
    if not any(name in _SHOWING or name.endswith(".help") for name, _ in given.options):
        _check_task(given)


def _check_task(given: Given) -> None:
    if given.config is None or given.value_of("model", "model.class_path"):
        return
    model = given.config.get("model")
    if isinstance(model, dict) and "class_path" in model:
        return
    if not given.configs:
        raise UsageError(
            "no task is named: put `--config` and one of `asym-lightning configs` first, or `--model` and `--data`."
        )
    raise UsageError(
        f"{Path(given.configs[0]).name} names no task, only what is laid over one: put the config of a task before it, "
        f"such as `{QUICKSTART}`."
    )
