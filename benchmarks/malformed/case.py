"""What a malformed call is, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A call that has to be refused.

    Args:
        name: What is wrong, in words; equal for equal cases.
        offenders: Texts of which the message has to hold one, such as the name of the file or of the option.
        make: Writes what the call needs to an empty folder.
        call: The call itself, given the folder; `benchmarks.malformed.judge.Touched` is for what it changed.
    """

    name: str
    offenders: Sequence[str]
    make: Callable[[Path], Any]
    call: Callable[[Path], Any]


@dataclass(frozen=True)
class Verdict:
    """How a call ended.

    Args:
        area: Of what it was.
        case: Its name.
        kind: `GOOD`, or what was wrong with the answer.
        message: The answer.
        seconds: How long it took.
    """

    area: str
    case: str
    kind: str
    message: str
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the call was refused as it should be."""
        return self.kind == GOOD


GOOD = "good"
ACCEPTED = "accepted"
UNNAMED = "offender not named"
RAW = "a library's message"
LONG = "long or in lines"
SLOW = "hangs"
LARGE = "takes memory"
LEFT = "leaves or changes files"
TOUCHED = "changes the model"
KILLED = "ends the process"
KINDS = (GOOD, ACCEPTED, UNNAMED, RAW, LONG, SLOW, LARGE, LEFT, TOUCHED, KILLED)
