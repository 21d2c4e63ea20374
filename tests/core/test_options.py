from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

from asym_lightning.core.options import check_kinds, from_plain, to_plain


@dataclass(frozen=True)
class Options:
    size: int = 1
    rate: float = 0.5
    is_wide: bool = False
    name: str = "a"
    kind: Literal["nf4", "int8"] | None = None
    limit: int | None = None
    arguments: dict[str, Any] | None = None
    anything: object = None

    def __post_init__(self) -> None:
        check_kinds(self)


def test_plain_form_is_a_dictionary_and_comes_back_equal():
    options = Options(size=3, kind="nf4", arguments={"a": [1, 2]})
    plain = to_plain(options)
    assert plain == {
        "size": 3, "rate": 0.5, "is_wide": False, "name": "a", "kind": "nf4", "limit": None,
        "arguments": {"a": [1, 2]}, "anything": None,
    }  # fmt: skip
    assert from_plain(Options, plain) == options


def test_what_is_no_mapping_stays_as_it_is():
    options = Options()
    assert from_plain(Options, options) is options and from_plain(Options, None) is None
    assert to_plain(Options) is Options and to_plain("text") == "text"


def test_a_field_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"^Options has no option 'limits': did you mean limit\?$"):
        from_plain(Options, {"limits": 3})


@pytest.mark.parametrize(
    "given", [{"rate": 1}, {"size": np.int64(3)}, {"rate": np.float32(3)}, {"limit": None}, {"anything": True}]
)
def test_values_of_the_right_kind_pass(given):
    assert Options(**given)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"size": "3"}, TypeError, "`size` must be an integer, not '3'."),
        ({"size": 3.0}, TypeError, "`size` must be an integer, not 3.0."),
        ({"size": True}, TypeError, "`size` must be an integer, not True."),
        ({"size": None}, TypeError, "`size` must be an integer, not null."),
        ({"rate": "fast"}, TypeError, "`rate` must be a number, not 'fast'."),
        ({"is_wide": 1}, TypeError, "`is_wide` must be true or false, not 1."),
        ({"name": 1}, TypeError, "`name` must be text, not 1."),
        ({"limit": "x"}, TypeError, "`limit` must be an integer or null, not 'x'."),
        ({"arguments": [1]}, TypeError, "`arguments` must be a mapping or null, not [1]."),
        ({"kind": "nf5"}, ValueError, "`kind` must be one of nf4, int8 or null, not 'nf5': did you mean nf4?"),
        ({"kind": "x"}, ValueError, "`kind` must be one of nf4, int8 or null, not 'x'."),
        ({"kind": 4}, TypeError, "`kind` must be one of nf4, int8 or null, not 4."),
    ],
)
def test_values_of_another_kind_are_refused_by_name(given, kind, message):
    with pytest.raises(kind) as error:
        Options(**given)
    assert str(error.value) == message
