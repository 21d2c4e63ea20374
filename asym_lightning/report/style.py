"""Title, names, order and looks of arms: the user's, and the same in every report."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asym_lightning.core.kinds import check_fields, check_names
from asym_lightning.core.messages import shown
from asym_lightning.core.yaml_file import read_mapping
from asym_lightning.report.chart import LOOKS, Look

# In the order of their looks; arms of other names take what is left.
SHIPPED = (
    "b_only_r8", "lora_r8", "a_only_r8", "full", "head_only", "b_only_r16", "b_only_r8_warm", "b_only_r8_chosen",
)  # fmt: skip


@dataclass(frozen=True)
class ReportStyle:
    """What a user says of how reports look.

    Args:
        title: Title of pages; None goes by the folder.
        names: What arms are called, by what they were called when they ran; the first ones come first.
        colours: Of arms, by what they were called when they ran, as `#rrggbb`.
    """

    title: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)

    def name(self, arm: str) -> str:
        """What an arm is called."""
        return self.names.get(arm, arm)

    def in_order(self, arms: Iterable[str]) -> list[str]:
        """Arms, once each: those that the user named in their order, then the others as they come.

        >>> ReportStyle(names={"lora": "LoRA"}).in_order(["full", "lora", "full"])
        ['lora', 'full']
        """
        places = {arm: place for place, arm in enumerate(self.names)}
        return sorted(dict.fromkeys(arms), key=lambda arm: places.get(arm, len(places)))

    def looks(self, arms: Iterable[str]) -> dict[str, Look]:
        """How arms look.

        An arm goes by its name, so that it looks alike beside whatever others: those of shipped configs have looks of
        their own, and one of another name has the look that its name stands for, or the next one that is free.

        >>> ReportStyle().looks(["lora_r8", "mine"])["lora_r8"] == ReportStyle().looks(["lora_r8"])["lora_r8"]
        True
        """
        arms = dict.fromkeys(arms)
        given = {colour for arm, colour in self.colours.items() if arm in arms}
        numbers: dict[str, int] = {}
        for arm in sorted(arms, key=lambda arm: (arm not in SHIPPED, arm)):
            wanted = SHIPPED.index(arm) if arm in SHIPPED else zlib.crc32(arm.encode())
            in_turn = [(wanted + i) % len(LOOKS) for i in range(len(LOOKS))]
            free = [n for n in in_turn if n not in numbers.values() and LOOKS[n].colour not in given]
            numbers[arm] = (free or in_turn)[0]
        return {arm: Look(self.colours.get(arm, LOOKS[number].colour), number) for arm, number in numbers.items()}


def read_style(path: str | Path) -> ReportStyle:
    """Read a style from a YAML file.

        title: Rotated digits
        arms:
          lora_r8: {name: LoRA, colour: "#c2410c"}
          b_only_r8: {name: B-only}

    Arms come in this order; those that are not named follow, and those that a report lacks do no harm.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no style; the message says what is wrong.
    """
    given = read_mapping(path, "the style of a report, such as `title:` and `arms:`")
    try:
        _check(given, "a style", {"title": str, "arms": Mapping[str, Mapping[str, Any] | None]})
        arms = {arm: options or {} for arm, options in given.get("arms", {}).items()}
        for arm, options in arms.items():
            _check(options, f"`arms.{arm}`", {"name": str, "colour": str}, prefix=f"arms.{arm}.")
        names = {arm: options.get("name", arm) for arm, options in arms.items()}
        colours = {arm: options["colour"].lower() for arm, options in arms.items() if "colour" in options}
        for arm, colour in colours.items():
            if not re.fullmatch("#[0-9a-f]{6}", colour):
                raise ValueError(f'`arms.{arm}.colour` must be as "#0b3866", not {shown(colour)}.')
        for what, values in (("name", list(names.values())), ("colour", list(colours.values()))):
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"two arms have the {what} {twice!r}.")
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{path}`: {error}") from error
    return ReportStyle(given.get("title"), names, colours)


def _check(given: Any, where: str, fields: Mapping[str, Any], prefix: str = "") -> None:
    check_fields(where, given, fields, prefix=prefix)
    check_names(where, given, list(fields))
