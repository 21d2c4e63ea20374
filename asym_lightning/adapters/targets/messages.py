"""What messages about names of layers share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from asym_lightning.core.messages import listed


def suffixes(names: Iterable[str]) -> list[str]:
    """The last two components of every name, a vocabulary for messages."""
    return sorted({".".join([part for part in name.split(".") if not part.isdigit()][-2:]) for name in names if name})


def nearest(word: str, vocabulary: Sequence[str]) -> str:
    """The end of a sentence on an unknown name: the nearest known one, or some of those that there are."""
    near = difflib.get_close_matches(word, vocabulary, n=1, cutoff=0.5)
    return f"; the nearest is {near[0]!r}" if near else f"; there are {listed(vocabulary, 8)}"
