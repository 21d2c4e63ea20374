"""Combinations of adapters beside those of `peft`, on a small model."""

from dataclasses import replace

import pytest

from benchmarks import combinations


@pytest.mark.slow
def test_ours_are_exact_and_the_mean_of_peft_is_as_many_times_too_large(monkeypatch) -> None:
    monkeypatch.setattr(combinations, "CELL", replace(combinations.CELL, depth=1, width=64))
    rows = list(combinations.measure(3))
    assert [row.method for row in rows] == list(combinations.METHODS)
    assert all(row.error < 1e-5 for row in rows)
    assert rows[0].peft_error == pytest.approx(2, rel=1e-3)
