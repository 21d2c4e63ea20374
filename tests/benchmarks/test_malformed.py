"""A sample of the malformed calls; `python -m benchmarks.malformed` makes more."""

from importlib.metadata import version

import pytest

from asym_lightning.core.messages import printable
from benchmarks.malformed.__main__ import AREAS, cases_of
from benchmarks.malformed.case import ACCEPTED, GOOD, LARGE, LEFT, LONG, RAW, SLOW, UNNAMED, Case, Verdict
from benchmarks.malformed.generate import generated
from benchmarks.malformed.judge import judge
from benchmarks.malformed.table import table

# Transformers 4 looks at no field of a config before the first forward.
UNCHECKED = pytest.mark.skipif(version("transformers") < "5", reason="transformers checks no types of fields there")


@pytest.mark.parametrize("area", [pytest.param(a, marks=[UNCHECKED] if a == "backbones" else []) for a in AREAS])
def test_malformed_calls_are_refused_in_one_sentence(area):
    verdicts = [judge(area, case) for case in cases_of(area, 25, seed=1)]
    bad = [verdict for verdict in verdicts if not verdict.is_good]
    assert not bad, printable("\n".join(f"{v.case}: {v.kind}: {v.message}" for v in bad))


def refusing(error):
    def call(folder):
        raise error

    return call


def test_cases_are_the_same_ones_for_a_seed():
    from benchmarks.malformed.adapters import strategy

    first, second = ([case.name for case in generated(strategy(), 20, seed)] for seed in (0, 0))
    assert first == second and len(set(first)) == 20
    assert [case.name for case in generated(strategy(), 20, 1)] != first


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (refusing(ValueError("`rank` must be at least 1, not 0.")), GOOD),
        (lambda folder: None, ACCEPTED),
        (refusing(ValueError("it is wrong.")), UNNAMED),
        (refusing(KeyError("rank")), RAW),
        (refusing(ValueError("rank: Expected a <class 'int'>")), RAW),
        (refusing(ValueError("rank " * 100)), LONG),
        (refusing(MemoryError()), LARGE),
        (lambda folder: (folder / "new").touch() or refusing(ValueError("rank"))(folder), LEFT),
    ],
)
def test_an_answer_is_judged_by_what_it_says_and_leaves(call, kind):
    assert judge("tests", Case("one", ["rank"], lambda folder: None, call)).kind == kind


def test_a_call_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr("benchmarks.malformed.judge.SECONDS", 0.2)

    def hang(folder):
        while True:
            pass

    assert judge("tests", Case("one", ["rank"], lambda folder: None, hang)).kind == SLOW


def test_the_table_counts_by_area_and_names_the_bad_ones():
    verdicts = [
        Verdict("a", "x", GOOD, "", 0.1),
        Verdict("a", "y", RAW, "KeyError", 0.2),
        Verdict("b", "z", GOOD, "", 0.3),
    ]
    text = table(verdicts)
    assert "| a | 2 | 1 (50.0%) | 0.2 | 1 | 1 |" in text
    assert "| all | 3 | 1 (33.3%) | 0.3 | 2 | 1 |" in text
    assert text.endswith("- a: y: a library's message. KeyError\n")
