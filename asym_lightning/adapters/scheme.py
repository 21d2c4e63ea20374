"""Schemes: which factor is trained and how each one starts, read from strings such as ``hB_zero_A_rand``."""

from __future__ import annotations

from dataclasses import dataclass

from asym_lightning.adapters.init.rule import InitRule, Letter, init_names, init_rule
from asym_lightning.core.messages import not_one_of

# What people call the arms, and how each begins as a rule.
_ARMS = {
    "bonly": "hB_zero_A_rand",
    "aonly": "B_rand_hA_zero",
    "lora": "hB_zero_hA_rand",
    "both": "hB_zero_hA_rand",
}
_MARKS: dict[str, tuple[Letter, bool]] = {"A": ("A", False), "hA": ("A", True), "B": ("B", False), "hB": ("B", True)}
_LETTERS: tuple[Letter, Letter] = ("A", "B")


@dataclass(frozen=True)
class Factor:
    """How one factor starts and whether it is trained."""

    init: str
    is_trained: bool

    @property
    def rule(self) -> InitRule:
        """The registered rule that :attr:`init` names."""
        return init_rule(self.init)


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
        if arm := _ARMS.get(text.lower().replace("_", "").replace("-", "")):
            raise ValueError(f"`scheme` {text!r} says what trains and not how it starts: did you mean {arm!r}?")
        factors: dict[Letter, Factor] = {}
        for letter, is_trained, init in _split(text):
            if letter in factors:
                raise ValueError(f"`scheme` {text!r} names factor {letter} twice; it needs A once and B once.")
            if init not in init_names(letter):
                what = f"`scheme` {text!r}: the init of {letter}"
                raise ValueError(
                    f"{not_one_of(what, init, init_names(letter))} `register_init` makes a rule of your own known."
                )
            factors[letter] = Factor(init, is_trained)
        for letter in _LETTERS:
            if letter not in factors:
                raise ValueError(
                    f"`scheme` {text!r} does not say how {letter} starts; add '{letter}_' and one of "
                    f"{', '.join(init_names(letter))} ('h{letter}_' if {letter} is trained)."
                )
        scheme = cls(factors["A"], factors["B"])
        scheme._check_can_move(text)
        return scheme

    @property
    def needs_weight(self) -> bool:
        """Whether a factor is drawn from the pretrained weight."""
        return self.A.rule.needs_weight or self.B.rule.needs_weight

    @property
    def needs_data(self) -> bool:
        """Whether a factor is drawn from calibration statistics."""
        return self.A.rule.needs_data or self.B.rule.needs_data

    def _check_can_move(self, text: str) -> None:
        if not (self.A.is_trained or self.B.is_trained):
            raise ValueError(f"`scheme` {text!r} trains nothing; mark the factor to train with 'h', as in 'hB_zero'.")
        # dB is proportional to A x and dA to B^T g: a trained factor moves only if the other one is not zero.
        B_moves = self.B.is_trained and not self.A.rule.is_zero
        A_moves = self.A.is_trained and not self.B.rule.is_zero
        if not (A_moves or B_moves):
            raise ValueError(
                f"`scheme` {text!r} can never move: the gradient of a factor is zero while the other one is zero; "
                "start the other factor from a nonzero init."
            )

    def __str__(self) -> str:
        parts = (("B", self.B), ("A", self.A))
        return "_".join(f"{'h' if factor.is_trained else ''}{letter}_{factor.init}" for letter, factor in parts)


def _split(text: str) -> list[tuple[Letter, bool, str]]:
    """Cut ``hB_zero_A_V_last`` into ``[("B", True, "zero"), ("A", False, "V_last")]``."""
    found: list[tuple[Letter, bool, list[str]]] = []
    for token in text.split("_"):
        if token in _MARKS:
            found.append((*_MARKS[token], []))
        elif found:
            found[-1][2].append(token)
        else:
            raise ValueError(
                f"`scheme` {text!r} starts with unknown token {token!r}; it must start with one of A, hA, B, hB, "
                "as in 'hB_zero_A_rand'."
            )
    return [(letter, is_trained, "_".join(words)) for letter, is_trained, words in found]
