"""Many adapters beside `peft`: both compute the same, and the page has a line for each number of adapters."""

import time

import pytest

from benchmarks import many_adapters
from benchmarks.cells import Cell

CELLS = {
    "images": Cell("vit-s", 1, 64, 6, 4, "all-linear", 2, "eager"),
    "tokens": Cell("llama-s", 1, 64, 6, 3, "all-linear", 2, "eager"),
    "new tokens": Cell("llama-s", 1, 64, 6, 3, "all-linear", 2, "eager"),
}


@pytest.mark.parametrize("name", CELLS)
def test_all_arms_compute_the_same(name, monkeypatch) -> None:
    monkeypatch.setattr(many_adapters, "CELLS", CELLS)
    monkeypatch.setattr(many_adapters, "ROWS", 6)
    monkeypatch.setattr(many_adapters, "NEW_TOKENS", 2)
    rows = list(many_adapters.measure(name, (1, 3), 1, time.process_time))
    assert [row.num_adapters for row in rows] == [1, 3]
    assert all(row.difference < 1e-4 for row in rows)
    assert "| new tokens | 3 |" in many_adapters.table([rows[1]._replace(cell="new tokens")], "command", "machine")
