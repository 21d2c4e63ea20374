"""Runs together beside runs apart: the page has a line for each number of runs, and weights are held once."""

import pytest

from benchmarks import together


@pytest.mark.slow
def test_the_weights_of_a_backbone_are_held_once():
    rows = [together.measure("digits ViT, 50 rows", count, steps=5, rounds=1) for count in (1, 2)]
    assert all(row.ratio > 0 for row in rows)
    assert rows[1].weights[1] < 1.2 * rows[1].weights[0]
    assert rows[0].weights[1] == rows[0].weights[0]
    assert "| digits ViT, 50 rows | 2 |" in together.page(rows, "command", "machine")
