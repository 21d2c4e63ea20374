"""What calibration batches say beforehand."""

import pytest
import torch

from asym_lightning.adapters import CalibrationStatistics
from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.rand import orthonormal_rows
from asym_lightning.adapters.init.rule import Draw, init_rule
from asym_lightning.analysis import advice
from asym_lightning.analysis.advice import LayerForecast, forecast, frozen_rules, plan_ranks
from asym_lightning.analysis.least_squares import least_squares_gap

D_OUT, D_IN = 10, 14


def draw_statistics(num_batches=1, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, g = draw(200, D_IN) @ draw(D_IN, D_IN), draw(200, D_OUT) @ draw(D_OUT, D_OUT)
    return CalibrationStatistics(x.T @ x / 200, draw(num_batches * D_OUT, D_IN), g.T @ g / 200)


def test_shares_are_those_of_the_least_squares_theory(monkeypatch):
    monkeypatch.setattr(advice, "DAMPING", 0.0)
    found = draw_statistics()
    S, C, G = found.inputs, found.outputs, found.gradients
    target = torch.linalg.inv(C) @ G @ torch.linalg.inv(S)
    result = forecast(found, found, frozen_rules(["rand", "block"]), ranks=[2, 5], name="a")
    for rule in ("rand", "block"):
        for rank in (2, 5):
            A = init_rule(rule).rows(Draw(rank, D_IN, D_IN, layer_generator(0, "a.A")))
            expected = least_squares_gap(target, S, A, torch.eye(D_OUT, rank), C)
            assert result.explained_by_B[rule][rank] == pytest.approx(expected.explained_by_B / expected.total)
    assert result.total == pytest.approx(expected.total)
    assert result.d_out == D_OUT


def test_the_share_of_A_is_that_of_a_random_orthonormal_B(monkeypatch):
    monkeypatch.setattr(advice, "DAMPING", 0.0)
    found = draw_statistics()
    target = torch.linalg.inv(found.outputs) @ found.gradients @ torch.linalg.inv(found.inputs)
    B = orthonormal_rows(4, D_OUT, layer_generator(0, "a.forecast.B")).T
    expected = least_squares_gap(target, found.inputs, torch.eye(4, D_IN), B, found.outputs)
    result = forecast(found, found, frozen_rules(["rand"]), ranks=[4], name="a")
    assert result.explained_by_A[4] == pytest.approx(expected.explained_by_A / expected.total)


def test_on_its_own_batches_the_whitened_gradient_explains_most_and_on_others_less():
    # One batch, and outputs that are white: then what the rule spans is the very target.
    S, outputs = draw_statistics().inputs, torch.eye(D_OUT, dtype=torch.float64)
    found, other = (CalibrationStatistics(S, draw_statistics(seed=seed).gradients, outputs) for seed in (0, 1))
    rules = frozen_rules(["rand", "inputs", "gradient", "whitened_gradient"])
    own = forecast(CalibrationStatistics(found.inputs, found.gradients), found, rules, ranks=[3], name="a")
    judged = forecast(CalibrationStatistics(found.inputs, found.gradients), other, rules, ranks=[3], name="a")
    assert own.explained_by_B["whitened_gradient"][3] > judged.explained_by_B["whitened_gradient"][3]
    assert own.best_rule(3) == "whitened_gradient"


def test_the_norm_is_that_of_what_B_reads():
    found = draw_statistics()
    result = forecast(found, found, frozen_rules(["coordinate"]), ranks=[D_IN - 4], name="a")
    assert result.input_norms["coordinate"] ** 2 == pytest.approx(float(found.inputs.diagonal().mean()), rel=0.6)
    A = init_rule("coordinate").rows(Draw(D_IN - 4, D_IN, D_IN, layer_generator(0, "a.A"))).double()
    assert result.input_norms["coordinate"] ** 2 == pytest.approx(float((A @ found.inputs @ A.T).diagonal().mean()))


def made(shares, total=1.0, by_A=(0.1, 0.2), d_out=10):
    return LayerForecast(
        {"rand": dict(zip((1, 2), shares, strict=True))}, dict(zip((1, 2), by_A, strict=True)), total, 2.0, 3.0,
        {"rand": 2.0}, d_out,
    )  # fmt: skip


def test_layers_together_count_by_what_there_is_to_explain():
    both = LayerForecast.of_all([made([0.2, 0.4], 3.0), made([0.6, 0.8], 1.0, d_out=6)])
    assert both.explained_by_B["rand"] == pytest.approx({1: 0.3, 2: 0.5})
    assert (both.total, both.d_out, both.input_norms["rand"]) == (4.0, 16, pytest.approx(2.0))
    assert both.factor(1, "rand") == "B" and made([0.0, 0.1]).factor(2, "rand") == "A"


def test_ranks_go_where_they_bring_most_and_stay_within_the_budget():
    layers = {"much": made([0.5, 0.9], 8.0), "little": made([0.1, 0.2], 1.0), "wide": made([0.9, 1.0], 8.0, d_out=1000)}
    plan = plan_ranks(layers, "rand", budget=30)
    assert plan.ranks == {"much": 2, "little": 1, "wide": 0}
    assert plan.num_trained == 30
    assert plan.explained == pytest.approx((0.9 * 8 + 0.1) / 17)
    assert plan_ranks(layers, "rand", budget=9).ranks == dict.fromkeys(layers, 0)


def test_what_can_not_be_said_is_refused():
    found = draw_statistics()
    with pytest.raises(ValueError, match="second moment of gradients at the outputs"):
        forecast(found, CalibrationStatistics(found.inputs, found.gradients), {}, ranks=[2], name="a")
    with pytest.raises(ValueError, match=r"no init rule 'mine' for A; those that are: .*rand"):
        frozen_rules(["mine"])
    with pytest.raises(ValueError, match="no init rule 'zero' for A"):  # beside which B learns nothing
        frozen_rules(["zero"])
    assert all(rule.is_orthonormal for rule in frozen_rules().values())
