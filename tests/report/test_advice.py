"""Advice as text and as an overlay."""

import dataclasses

import pytest
import yaml

from asym_lightning.adapters import AdapterConfig
from asym_lightning.analysis.advice import LayerForecast
from asym_lightning.report.advice import Advice, advice_text, overlay_text


def layer(rand, whitened, by_A=0.1, total=1.0):
    shares = {"rand": {4: rand / 2, 8: rand}, "whitened_gradient": {4: whitened / 2, 8: whitened}}
    norms = {"rand": 3.0, "whitened_gradient": 1.0}
    return LayerForecast(shares, {4: by_A / 2, 8: by_A}, total, 5.0, 6.0, norms, d_out=10)


def advice(**layers):
    names = {f"blocks.{i}.fc.all": found for i, found in enumerate(layers.values())}
    return Advice(AdapterConfig(rank=8), names, {name: name.removesuffix(".all") for name in names}, rate=0.01)


def test_the_best_rule_gives_scheme_callback_and_rate():
    given = advice(a=layer(0.2, 0.5), b=layer(0.3, 0.4))
    assert (given.rule, given.factor, given.scheme) == ("whitened_gradient", "B", "hB_zero_A_whitened_gradient")
    assert given.starting_rate == pytest.approx(0.03)
    assert given.overlay() == {
        "model": {"adapter": {"scheme": given.scheme}, "optimizer": {"init_args": {"lr": 0.03}}},
        "trainer": {"callbacks+": [{"class_path": "asym_lightning.callbacks.CalibrateA"}]},
    }
    with_heads = dataclasses.replace(given, head_steps=30).overlay()["trainer"]["callbacks+"]
    assert with_heads[0]["init_args"] == {"head_steps": 30}
    text = advice_text(given)
    assert "| blocks.0.fc | 5.0 | 6.0 | 0.20 | 0.50 | 0.10 | B |" in text
    assert "| blocks.*.fc | 5.0 | 6.0 | 0.25 | 0.45 | 0.10 | B |" in text
    assert "| 4 | 0.12 | 0.23 | 0.05 |" in text or "| 4 | 0.12 | 0.22 | 0.05 |" in text
    assert "start from 0.03, where the config has 0.01" in text


def test_a_rule_that_needs_no_data_needs_no_callback():
    given = advice(a=layer(0.5, 0.2))
    assert given.rule == "rand" and "trainer" not in given.overlay()
    assert given.starting_rate == pytest.approx(0.01)


def test_A_is_trained_where_it_explains_more():
    given = advice(a=layer(0.2, 0.3, by_A=0.6))
    assert (given.factor, given.scheme, given.starting_rate) == ("A", "B_rand_hA_zero", None)
    assert given.overlay() == {"model": {"adapter": {"scheme": "B_rand_hA_zero"}}}


def test_a_plan_becomes_ranks_of_layers_at_one_scaling_and_layers_left_out():
    given = advice(much=layer(0.2, 0.9, total=8.0), some=layer(0.2, 0.5, total=4.0), little=layer(0.1, 0.1, total=0.1))
    planned = given.with_plan(budget=120)
    assert planned.plan.ranks == {"blocks.0.fc": 8, "blocks.1.fc": 4, "blocks.2.fc": 0}
    adapter = planned.overlay()["model"]["adapter"]
    assert adapter["rank_pattern"] == {"blocks.1.fc": 4}
    assert adapter["alpha_pattern"] == {"blocks.1.fc": 8.0}
    assert adapter["exclude"] == ["blocks.2.fc"]
    assert "Ranks for 120 trained numbers" in advice_text(planned)
    text = overlay_text(planned)
    assert text.startswith("# Advised from calibration: B trained by hB_zero_A_whitened_gradient, with 120 trained")
    assert yaml.safe_load(text) == planned.overlay()
    AdapterConfig(**{**adapter, "targets": ["fc"]})


def test_without_a_known_rate_none_is_advised():
    assert dataclasses.replace(advice(a=layer(0.2, 0.5)), rate=None).starting_rate is None
