"""Values that are wrong wherever a certain kind is wanted."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

TEXTS: tuple[Any, ...] = ("", "x", "8", "nan", "\x00", "../..", "é" * 40, "[1", "{}", "\udce9", "a" * 1000)
LISTS: tuple[Any, ...] = ([], [1], [[1]], ["a", None])
MAPPINGS: tuple[Any, ...] = ({}, {"a": 1}, {"": {}})
NOT_FINITE: tuple[Any, ...] = (math.nan, math.inf, -math.inf)
HUGE: tuple[Any, ...] = (2**70, -(2**70), 10**400)
FRACTIONS: tuple[Any, ...] = (0.5, 2.5, -1.5, 1e-9)
TRUTHS: tuple[Any, ...] = (True, False)


def not_positive_integers() -> st.SearchStrategy[Any]:
    """What no count, rank or size can be."""
    return st.one_of(
        st.sampled_from((*TEXTS, *LISTS, *MAPPINGS, *NOT_FINITE, *HUGE, *FRACTIONS, *TRUTHS)),
        st.integers(max_value=0),
    )


def not_numbers() -> st.SearchStrategy[Any]:
    """What no finite number can be."""
    return st.sampled_from((*TEXTS, *LISTS, *MAPPINGS, *NOT_FINITE, *TRUTHS))


def not_positive_numbers() -> st.SearchStrategy[Any]:
    """What no positive number can be."""
    return st.one_of(not_numbers(), st.floats(max_value=0, allow_nan=False), st.integers(max_value=0))


def not_shares() -> st.SearchStrategy[Any]:
    """What is not in [0, 1)."""
    return st.one_of(not_numbers(), st.floats(min_value=1), st.floats(max_value=-1e-9))


def not_texts() -> st.SearchStrategy[Any]:
    """What is no text."""
    return st.one_of(st.sampled_from((*LISTS, *MAPPINGS, *NOT_FINITE, *TRUTHS)), st.integers(), st.floats())


def not_truths() -> st.SearchStrategy[Any]:
    """What is neither true nor false nor null."""
    return st.one_of(st.sampled_from((*TEXTS, *LISTS, *MAPPINGS, *NOT_FINITE)), st.integers())


def not_lists_of_texts() -> st.SearchStrategy[Any]:
    """What is no list of texts."""
    return st.one_of(st.sampled_from((*MAPPINGS, *NOT_FINITE, *TRUTHS, [1], ["a", None], [["a"]])), st.integers())


def not_mappings() -> st.SearchStrategy[Any]:
    """What is no mapping."""
    return st.one_of(st.sampled_from((*TEXTS[1:], *LISTS[1:], *NOT_FINITE, True)), st.integers(min_value=1))


def bytes_of_nothing() -> st.SearchStrategy[bytes]:
    """What is no file of any format."""
    return st.one_of(
        st.sampled_from(
            (b"", b"\x00", b"\xff\xfe", b"hello\n", b"PK\x03\x04", b"\x80\x02}", b"\xe9", b"{", b"[" * 100_000)
        ),
        st.binary(min_size=1, max_size=200).filter(lambda data: not data.strip().isdigit()),
    )
