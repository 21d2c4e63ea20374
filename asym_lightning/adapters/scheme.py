"""Schemes: which factor is trained and how each one starts, read from strings such as ``hB_zero_A_rand``."""

from __future__ import annotations

from dataclasses import dataclass

from asym_lightning.core.messages import not_one_of

A_INITS = ("rand", "V", "V_last", "he", "zero")
B_INITS = ("zero", "U", "U_last", "rand", "he")
_INITS = {"A": A_INITS, "B": B_INITS}


@dataclass(frozen=True)
class Factor:
    """How one factor starts and whether it is trained."""

    init: str
    is_trained: bool


@dataclass(frozen=True)
class Scheme:
    """A resolved scheme: one :class:`Factor` for A and one for B.

    >>> Scheme.parse("A_rand_hB_zero") == Scheme.parse("hB_zero_A_rand")
    True
    >>> str(Scheme.parse("A_V_last_hB_zero"))
    'hB_zero_A_V_last'

    Source: Zhu et al. 2024, section 5; the strings are those of its released code, but read by letter. That code
    reads by position and runs the opposite arm for ``A_rand_hB_zero``.
    """

    A: Factor
    B: Factor

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read a scheme string: ``[h]A_<init>`` and ``[h]B_<init>`` in either order, ``h`` (hat) for *trained*.

        Raises:
            TypeError: ``text`` is not a string.
            ValueError: A token is unknown or repeated, a factor is missing, or nothing could ever move.
        """
        if not isinstance(text, str):
            raise TypeError(f"`scheme` must be a string such as 'hB_zero_A_rand', got {type(text).__name__}.")
        factors: dict[str, Factor] = {}
        for letter, is_trained, init in _split(text):
            if letter in factors:
                raise ValueError(f"`scheme` {text!r} names factor {letter} twice; it needs A once and B once.")
            if init not in _INITS[letter]:
                raise ValueError(not_one_of(f"`scheme` {text!r}: the init of {letter}", init, _INITS[letter]))
            factors[letter] = Factor(init, is_trained)
        for letter in "AB":
            if letter not in factors:
                raise ValueError(
                    f"`scheme` {text!r} does not say how {letter} starts; add '{letter}_' and one of "
                    f"{', '.join(_INITS[letter])} ('h{letter}_' if {letter} is trained)."
                )
        scheme = cls(**factors)
        scheme._check_can_move(text)
        return scheme

    @property
    def needs_weight(self) -> bool:
        """Whether a factor starts from singular vectors of the pretrained weight."""
        return self.A.init[0] == "V" or self.B.init[0] == "U"

    def _check_can_move(self, text: str) -> None:
        if not (self.A.is_trained or self.B.is_trained):
            raise ValueError(f"`scheme` {text!r} trains nothing; mark the factor to train with 'h', as in 'hB_zero'.")
        # dB is proportional to A x and dA to B^T g: a trained factor moves only if the other one is not zero.
        B_moves = self.B.is_trained and self.A.init != "zero"
        A_moves = self.A.is_trained and self.B.init != "zero"
        if not (A_moves or B_moves):
            raise ValueError(
                f"`scheme` {text!r} can never move: the gradient of a factor is zero while the other one is zero; "
                "start the other factor from a nonzero init."
            )

    def __str__(self) -> str:
        parts = (("B", self.B), ("A", self.A))
        return "_".join(f"{'h' if factor.is_trained else ''}{letter}_{factor.init}" for letter, factor in parts)


def _split(text: str) -> list[tuple[str, bool, str]]:
    """Cut ``hB_zero_A_V_last`` into ``[("B", True, "zero"), ("A", False, "V_last")]``."""
    found: list[tuple[str, bool, list[str]]] = []
    for token in text.split("_"):
        if token in ("A", "B", "hA", "hB"):
            found.append((token[-1], token.startswith("h"), []))
        elif found:
            found[-1][2].append(token)
        else:
            raise ValueError(
                f"`scheme` {text!r} starts with unknown token {token!r}; it must start with one of A, hA, B, hB, "
                "as in 'hB_zero_A_rand'."
            )
    return [(letter, is_trained, "_".join(words)) for letter, is_trained, words in found]
