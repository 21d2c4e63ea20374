"""Porter's suffix stripping with the extensions that ROUGE's reference implementation uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

Condition = Callable[[str], bool]
Rule = tuple[str, str]

IRREGULAR = {
    **dict.fromkeys(("skies", "sky"), "sky"),
    **dict.fromkeys(("innings", "inning"), "inning"),
    **dict.fromkeys(("outings", "outing"), "outing"),
    **dict.fromkeys(("cannings", "canning"), "canning"),
    **{"dying": "die", "lying": "lie", "tying": "tie"},
    **{word: word for word in ("news", "howe", "proceed", "exceed", "succeed")},
}

# In each list the first suffix that a word ends with decides, whether or not its stem is long enough.
PLURALS: Sequence[Rule] = (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", ""))
DOUBLE_SUFFIXES: Sequence[Rule] = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"),
    ("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"),
    ("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful"),
)  # fmt: skip
SUFFIXES: Sequence[Rule] = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
LAST_SUFFIXES = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
)  # fmt: skip


@functools.lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Return the stem of a lower-case word.

    This is Porter's algorithm as NLTK extends it (irregular words, `dies` to `die`, `enjoy` left alone), because
    `rouge-score`, whose numbers papers report, stems with it.

    Source: Porter (1980), An algorithm for suffix stripping; NLTK's `PorterStemmer`, mode `NLTK_EXTENSIONS`.

    Example:
        >>> [stem(word) for word in ("summaries", "relational", "hopping", "happily", "dying")]
        ['summari', 'relat', 'hop', 'happili', 'die']
    """
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 2:
        return word
    for step in (_plural, _past_or_gerund, _final_y, _double_suffix, _suffix, _last_suffix, _final_e, _final_double_l):
        word = step(word)
    return word


def _plural(word: str) -> str:
    if len(word) == 4 and word.endswith("ies"):
        return word[:-1]
    return _replaced(word, PLURALS, lambda _: True)


def _past_or_gerund(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix) and "v" in _shape(word[: -len(suffix)]):
            return _with_its_ending(word[: -len(suffix)])
    return word


def _with_its_ending(word: str) -> str:
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c":
        return word if word[-1] in "lsz" else word[:-1]
    return word + "e" if _measure(word) == 1 and _ends_in_short_syllable(word) else word


def _final_y(word: str) -> str:
    if word.endswith("y") and len(word) > 2 and _shape(word[:-1])[-1] == "c":
        return word[:-1] + "i"
    return word


def _double_suffix(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _double_suffix(word[:-2])
    replaced = _replaced(word, DOUBLE_SUFFIXES, lambda start: _measure(start) > 0)
    if replaced == word and word.endswith("logi") and _measure(word[:-3]) > 0:
        return word[:-1]
    return replaced


def _suffix(word: str) -> str:
    return _replaced(word, SUFFIXES, lambda start: _measure(start) > 0)


def _last_suffix(word: str) -> str:
    for suffix in LAST_SUFFIXES:
        if word.endswith(suffix):
            start = word[: -len(suffix)]
            is_removed = _measure(start) > 1 and (suffix != "ion" or start[-1] in "st")
            return start if is_removed else word
    return word


def _final_e(word: str) -> str:
    start = word[:-1]
    if word.endswith("e") and (_measure(start) > 1 or (_measure(start) == 1 and not _ends_in_short_syllable(start))):
        return start
    return word


def _final_double_l(word: str) -> str:
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _replaced(word: str, rules: Sequence[Rule], condition: Condition) -> str:
    for suffix, replacement in rules:
        if word.endswith(suffix):
            start = word[: -len(suffix)]
            return start + replacement if condition(start) else word
    return word


def _shape(word: str) -> str:
    """Consonants as c, vowels as v; a y after a consonant is a vowel.

    >>> _shape("syzygy")
    'cvcvcv'
    """
    shape = ""
    for letter in word:
        is_vowel = letter in "aeiou" or (letter == "y" and shape[-1:] == "c")
        shape += "v" if is_vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Porter's measure: how often a vowel is followed by a consonant.

    >>> [_measure(word) for word in ("tree", "trouble", "private")]
    [0, 1, 2]
    """
    return _shape(word).count("vc")


def _ends_in_short_syllable(word: str) -> bool:
    shape = _shape(word)
    return (shape.endswith("cvc") and word[-1] not in "wxy") or shape == "vc"
