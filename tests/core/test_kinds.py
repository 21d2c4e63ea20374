import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest

from asym_lightning.core.kinds import (
    Count,
    Fraction,
    LabelNames,
    Positive,
    Range,
    check_fields,
    check_names,
    check_value,
)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, Count),
        (None, Count | None),
        (0, Fraction),
        (1.0, Fraction),
        (1e-300, Positive),
        (["a"], Sequence[str]),
        (("a",), list[str]),
        ([], list[str] | str | None),
        (["a", "b"], LabelNames | None),
        (None, LabelNames | None),
        ({"a": 1}, Mapping[str, Count]),
        ({"a": object()}, Mapping[str, Any]),
        (object(), object),
        (2**63 - 1, int),
    ],
)
def test_what_an_annotation_says_passes(value, annotation):
    check_value("it", value, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "kind", "message"),
    [
        (0, Count, ValueError, "`it` must be at least 1, not 0."),
        (0, Count | None, ValueError, "`it` must be at least 1 or null, not 0."),
        (True, Count, TypeError, "`it` must be an integer, not True."),
        (1.5, Fraction, ValueError, "`it` must be in [0, 1], not 1.5."),
        (math.nan, Fraction, ValueError, "`it` must be in [0, 1], not nan."),
        (math.inf, Positive, ValueError, "`it` must be positive and finite, not inf."),
        (1e300, Positive, ValueError, "`it` must be positive and finite, not 1e+300."),
        (math.nan, float, ValueError, "`it` must be finite, not nan."),
        (2**70, int, ValueError, f"`it` must be in [-9.22337e+18, 9.22337e+18], not {2**70}."),
        (1, Annotated[float, Range(1, is_open_below=True)], ValueError, "`it` must be above 1, not 1."),
        (["a", 3], list[str], TypeError, "`it[1]` must be text, not 3."),
        (["a", "b", "a"], LabelNames | None, ValueError, "`it` has 'a' twice; each must be there once."),
        (["a", 3], LabelNames, TypeError, "`it[1]` must be text, not 3."),
        ("ab", list[str], TypeError, "`it` must be a list, not 'ab'."),
        ({"a": 0}, Mapping[str, Count], ValueError, "`it['a']` must be at least 1, not 0."),
        ({3: 1}, Mapping[str, Count], TypeError, "`a key of it` must be text, not 3."),
        ([[[1]]], int, TypeError, "`it` must be an integer, not [[[...]]]."),
    ],
)
def test_anything_else_is_refused_by_name(value, annotation, kind, message):
    with pytest.raises(kind) as error:
        check_value("it", value, annotation)
    assert str(error.value) == message


def test_fields_are_checked_where_they_are():
    fields = {"rank": Count, "name": str}
    check_fields("the file", {"rank": 2, "more": None}, fields, required=["rank"])
    with pytest.raises(ValueError, match=r"^the file lacks `rank`\.$"):
        check_fields("the file", {"name": "x"}, fields, required=["rank"])
    with pytest.raises(TypeError, match=r"^the file must be a mapping, not \[1\]\.$"):
        check_fields("the file", [1], fields)
    with pytest.raises(ValueError, match=r"^`rank` must be at least 1, not 0\.$"):
        check_fields("the file", {"rank": 0}, fields)


def test_a_name_that_is_not_known_is_refused_with_the_nearest():
    check_names("the file", {"rank": 1}, ["rank"])
    with pytest.raises(ValueError, match=r"^the file has an unknown key 'rnak': did you mean rank\?$"):
        check_names("the file", {"rnak": 1}, ["rank"])
