"""What messages about names share: how they are listed, and which one may have been meant."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Iterable, Sequence

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 4
_REPR.maxlevel = 2


def listed(names: Sequence[str], limit: int, *, separator: str = ", ") -> str:
    """The first few names in full, and how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    return separator.join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that may have been meant, whatever its case, hyphens and underscores; None if none is near.

    >>> nearest("STS-B", ["rte", "stsb"]), nearest("gamma", ["rte", "stsb"])
    ('stsb', None)
    """
    by_letters = {_letters(word): word for word in known}
    near = difflib.get_close_matches(_letters(str(name)[:100]), by_letters, n=1, cutoff=0.5)
    return by_letters[near[0]] if near else None


def suggestion(name: object, known: Iterable[str]) -> str:
    """The end of a sentence on an unknown name: the nearest known one, or a full stop.

    >>> suggestion("rnak", ["rank", "alpha"]), suggestion("gamma", ["rank"])
    (': did you mean rank?', '.')
    """
    near = nearest(name, known)
    return f": did you mean {near}?" if near else "."


def did_you_mean(name: object, known: Collection[str], *, limit: int = 8) -> str:
    """The end of a sentence on an unknown name: the nearest known one, or some of those that there are.

    >>> did_you_mean("rnak", ["rank", "alpha"])
    ': did you mean rank?'
    >>> did_you_mean("gamma", ["rank", "heads"]), did_you_mean("gamma", [])
    ('; there are rank, heads.', '; there are none.')
    """
    if nearest(name, known):
        return suggestion(name, known)
    return f"; there are {listed(list(known), limit) or 'none'}."


def not_one_of(what: str, value: object, choices: Collection[str], *, limit: int = 20) -> str:
    """A sentence on a value that is none of a few; it names them, and the nearest.

    >>> not_one_of("`decay`", "cosin", ["cosine", "linear"])
    "`decay` must be one of cosine, linear, not 'cosin': did you mean cosine?"
    """
    return f"{what} must be one of {listed(list(choices), limit)}, not {_REPR.repr(value)}{suggestion(value, choices)}"


def check_choice(option: str, value: object, choices: Collection[str]) -> None:
    """Check that an option has one of a few values.

    Raises:
        ValueError: It has another; the message is that of :func:`not_one_of`.
    """
    if value not in choices:
        raise ValueError(not_one_of(f"`{option}`", value, choices))


def shown(value: object) -> str:
    r"""A value as a message shows it: cut short, and null for None.

    >>> shown(None), shown("a" * 100)
    ('null', "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'")
    """
    return "null" if value is None else _REPR.repr(value)


def printable(text: str) -> str:
    r"""A text that can be printed wherever: control characters and halves of surrogate pairs by their numbers.

    >>> printable("a\x1b[31m\udce9")
    'a\\x1b[31m\\udce9'
    """
    return "".join(c if c.isprintable() or c in " \n" else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, limit: int = 300) -> str:
    """A text without its middle, where it is longer than people read: what is wrong and what to do are at the ends.

    >>> shortened("from the first to the last of all words", limit=29)
    'from the first ... words'
    """
    if len(text) <= limit:
        return text
    kept = limit - len(" ... ")
    head, tail = text[: kept * 2 // 3], text[len(text) - kept // 3 :]
    return f"{head.rpartition(' ')[0] or head} ... {tail.partition(' ')[2] or tail}"


def first_line(error: BaseException) -> str:
    r"""What an error says first, for a sentence that it is quoted in.

    >>> first_line(OSError("no such model\nIf this is a private repository ...")), first_line(KeyError())
    ('no such model', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _letters(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "-_ "))
