"""What a user typed and the program does not understand."""

from __future__ import annotations


class UsageError(ValueError):
    """A command, an option or a value that there is not; the program ends with the exit code of wrong usage."""
