"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], limit: int) -> str:
    """The first few names in full, and how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
