"""What a user typed and the program does not understand."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from typing_extensions import override

from asym_lightning.core.messages import did_you_mean, shown


class UsageError(ValueError):
    """A command, an option or a value that there is not; the program ends with the exit code of wrong usage."""


class ToolParser(argparse.ArgumentParser):
    """Reads the options of a tool; what is wrong with them is raised, not printed on top of the usage.

    Args:
        tool: Name of the command.
        options: As `argparse.ArgumentParser` takes them.

    Example:
        >>> parser = ToolParser("report")
        >>> _ = parser.add_argument("--title")
        >>> parser.parse_args(["--titel=Digits"])
        Traceback (most recent call last):
        asym_lightning.cli.usage.UsageError: `asym-lightning report` has no option '--titel': did you mean --title?
    """

    def __init__(self, tool: str, **options: Any) -> None:
        super().__init__(prog=f"asym-lightning {tool}", exit_on_error=False, **options)

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        with self._raised_as_usage():
            return super().parse_known_args(args, namespace)

    @override
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        with self._raised_as_usage():
            return super().parse_args(args, namespace)

    @contextmanager
    def _raised_as_usage(self) -> Iterator[None]:
        """From Python 3.12 on what is of no one argument is raised, and no longer given to `error`."""
        try:
            yield
        except argparse.ArgumentError as error:
            if error.argument_name is not None:
                raise
            self.error(error.message)

    @override
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise UsageError(f"`{self.prog}`: {message}.")
        name = unknown.partition(" ")[0].partition("=")[0]
        if not name.startswith("-"):
            raise UsageError(f"`{self.prog}` does not know what to do with {shown(name)}.")
        known = sorted(set(re.findall(r"--[\w-]+", self.format_usage())))
        raise UsageError(f"`{self.prog}` has no option {shown(name)}{did_you_mean(name, known)}")
