"""Scheme strings: by letter, either order, and only those that can move."""

import itertools

import pytest

from asym_lightning.adapters.init.rule import init_names
from asym_lightning.adapters.scheme import Factor, Scheme

# PROTOCOL: string -> (B, A) as the paper means it.
PUBLISHED = {
    "A_rand_hB_zero": (Factor("zero", True), Factor("rand", False)),
    "hB_zero_A_rand": (Factor("zero", True), Factor("rand", False)),
    "B_rand_hA_zero": (Factor("rand", False), Factor("zero", True)),
    "hB_zero_hA_he": (Factor("zero", True), Factor("he", True)),
    "A_V_hB_zero": (Factor("zero", True), Factor("V", False)),
    "hB_zero_A_V_last": (Factor("zero", True), Factor("V_last", False)),
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_strings_mean_what_their_letters_say(text):
    B, A = PUBLISHED[text]
    assert Scheme.parse(text) == Scheme(A=A, B=B)


@pytest.mark.parametrize("A_init", init_names("A"))
@pytest.mark.parametrize("B_init", init_names("B"))
@pytest.mark.parametrize(("A_hat", "B_hat"), list(itertools.product(["", "h"], repeat=2)))
def test_all_combinations_in_either_order(A_init, B_init, A_hat, B_hat):
    A, B = f"{A_hat}A_{A_init}", f"{B_hat}B_{B_init}"
    can_move = (B_hat and A_init != "zero") or (A_hat and B_init != "zero")
    for text in (f"{A}_{B}", f"{B}_{A}"):
        if can_move:
            scheme = Scheme.parse(text)
            assert scheme == Scheme(A=Factor(A_init, bool(A_hat)), B=Factor(B_init, bool(B_hat)))
            assert Scheme.parse(str(scheme)) == scheme
        else:
            with pytest.raises(ValueError, match=r"trains nothing|can never move"):
                Scheme.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hB_zero", "does not say how A starts"),
        ("hB_zero_B_rand_A_rand", "names factor B twice"),
        ("hB_zero_A_random", r"the init of A must be one of .*, not 'random': did you mean rand\?"),
        ("hB_V_A_rand", "the init of B must be one of .*, not 'V'"),
        ("C_rand_hB_zero", "unknown token 'C'"),
        ("", "unknown token ''"),
        ("hB_A_rand", "the init of B must be one of .*, not ''"),
        ("hB_zero_A_rand_extra", "the init of A must be one of .*, not 'rand_extra'"),
    ],
)
def test_bad_strings_name_the_offender(text, message):
    with pytest.raises(ValueError, match=message):
        Scheme.parse(text)


def test_other_kinds_are_refused():
    with pytest.raises(TypeError, match="`scheme` must be a string"):
        Scheme.parse(None)
