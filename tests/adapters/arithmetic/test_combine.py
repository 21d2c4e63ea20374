import pytest
import torch

from asym_lightning.adapters.arithmetic import (
    combined,
    concatenation,
    dropped,
    mean,
    projection,
    sign_election,
    trimmed,
    weighted_sum,
)
from tests.adapters.arithmetic.adapters import plain, written


@pytest.fixture
def two(tmp_path):
    return [written(tmp_path, n, model=plain(), targets=["0"], heads=[]) for n in range(2)]


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({}, mean),
        ({"method": "sum", "weights": [1, -2]}, lambda two: weighted_sum(two, [1, -2])),
        ({"method": "ties"}, lambda two: sign_election([trimmed(adapter, 0.2) for adapter in two])),
        ({"method": "ties", "keep": 0.5}, lambda two: sign_election([trimmed(adapter, 0.5) for adapter in two])),
        ({"drop": 0.5, "seed": 2}, lambda two: mean([dropped(two[0], 0.5, seed=2), dropped(two[1], 0.5, seed=3)])),
        ({"join": "concatenate", "method": "sum"}, concatenation),
        ({"join": "concatenate"}, lambda two: concatenation(two, [0.5, 0.5])),
        ({"join": "project", "rank": 2, "method": "sum"}, lambda two: projection(two, 2)),
    ],
)
def test_options_name_functions(options, function, two):
    found, expected = combined(two, **options), function(two)
    assert all(torch.equal(found.factors[name], expected.factors[name]) for name in expected.factors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "median"}, "`method` must be one of mean, sum, ties"),
        ({"join": "cat"}, "`join` must be one of concatenate, project"),
        ({"rank": 2}, "goes with `join: project`"),
        ({"join": "concatenate", "rank": 2}, "concatenation has the sum of all ranks"),
        ({"join": "project", "method": "ties"}, "which need one A"),
        ({"join": "project", "weights": [1, -1]}, "must not add up to zero"),
    ],
)
def test_options_that_do_not_go_together(options, message, two):
    with pytest.raises(ValueError, match=message):
        combined(two, **options)
