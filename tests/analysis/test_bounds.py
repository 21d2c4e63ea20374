import math

import pytest

from asym_lightning.analysis import generalization_bound
from asym_lightning.analysis.bounds import AdapterShape, affordable_rank

LAYERS = [AdapterShape("q", 6, 4, rank=2), AdapterShape("k", 2, 4, rank=2), AdapterShape("v", 6, 4, rank=1)]


@pytest.mark.parametrize(
    ("trained", "num_trained"),
    [("B", 2 * 6 + 2 * 2 + 1 * 6), ("A", 2 * 4 + 2 * 4 + 1 * 4), ("both", 22 + 20)],
)
def test_equals_the_value_computed_by_hand(trained, num_trained):
    expected = math.sqrt(2 * 0.5**2 * 16 * math.log(2) * num_trained / 1000)
    assert generalization_bound(LAYERS, 1000, trained, bits=16, sigma=0.5) == pytest.approx(expected, rel=1e-14)


def test_roberta_large_by_hand():
    # q and v of 24 layers, 1024 x 1024, rank 8: 393,216 numbers of B; sqrt(2 * 32 * 0.693147 * 393216 / 2490) = 83.70
    layers = [AdapterShape(f"{i}", 1024, 1024, 8) for i in range(48)]
    assert generalization_bound(layers, 2490) == pytest.approx(83.698, abs=1e-3)


def test_square_layers_give_b_only_twice_the_rank():
    square = [AdapterShape("q", 16, 16, 4), AdapterShape("v", 16, 16, 4)]
    both, b_only = (generalization_bound(square, 100, trained) for trained in ("both", "B"))
    assert both / b_only == pytest.approx(math.sqrt(2))
    assert affordable_rank(square) == 2
    doubled = [AdapterShape(layer.name, 16, 16, 8) for layer in square]
    assert generalization_bound(doubled, 100, "B") == pytest.approx(both)


def test_a_shared_A_counts_once():
    shared = [AdapterShape("q", 8, 8, 2), AdapterShape("k", 8, 8, 2, owns_A=False)]
    assert [sum(layer.num_trained(t) for layer in shared) for t in ("A", "B", "both")] == [16, 32, 48]
    assert affordable_rank(shared) == 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": [], "num_samples": 10}, "no adapters"),
        ({"layers": LAYERS, "num_samples": 0}, "`num_samples` must be positive, not 0"),
        ({"layers": LAYERS, "num_samples": 10, "bits": -1}, "`bits`"),
        ({"layers": LAYERS, "num_samples": 10, "sigma": math.nan}, "`sigma`"),
        ({"layers": LAYERS, "num_samples": 10, "trained": "C"}, "`trained` must be one of A, B, both, not 'C'"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        generalization_bound(**arguments)
