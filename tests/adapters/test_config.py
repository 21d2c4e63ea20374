"""AdapterConfig: every bad value is refused at construction, by name."""

import json

import pytest

from asym_lightning.adapters import AdapterConfig


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"rank": 0}, ValueError, "`rank` must be at least 1, not 0"),
        ({"rank": -3}, ValueError, "`rank` must be at least 1, not -3"),
        ({"rank": 2.5}, TypeError, "`rank` must be an integer"),
        ({"rank": True}, TypeError, "`rank` must be an integer"),
        ({"rank_pattern": {"q": 0}}, ValueError, r"`rank_pattern\['q'\]` must be at least 1"),
        ({"alpha": 0}, ValueError, "`alpha` must be positive"),
        ({"alpha": float("nan")}, ValueError, "`alpha` must be positive and finite"),
        ({"alpha_pattern": {"q": "x"}}, TypeError, r"`alpha_pattern\['q'\]` must be a number"),
        ({"dropout": 1.0}, ValueError, r"`dropout` must be in \[0, 1\), not 1.0"),
        ({"dropout": -0.1}, ValueError, r"`dropout` must be in \[0, 1\)"),
        ({"targets": []}, ValueError, "`targets` is empty"),
        ({"targets": [1]}, TypeError, "`targets` must be a list of names"),
        ({"heads": 3}, TypeError, "`heads` must be a list of names"),
        ({"max_rank": 4}, ValueError, "`max_rank` is 4, smaller than the rank 8"),
        ({"max_rank": 8, "rank_pattern": {"q": 9}}, ValueError, "`max_rank` is 8, smaller than the rank 9"),
        ({"seed": 1.5}, TypeError, "`seed` must be an integer"),
        ({"path": "fast"}, ValueError, "`path` must be one of auto, plain, .*, not 'fast'"),
        ({"scheme": "A_rand"}, ValueError, "does not say how B starts"),
    ],
)
def test_bad_values_name_the_field(values, error, message):
    with pytest.raises(error, match=message):
        AdapterConfig(**values)


def test_a_single_name_is_a_list_of_one():
    assert AdapterConfig(targets="all-linear") == AdapterConfig(targets=["all-linear"])


def test_survives_json():
    config = AdapterConfig("hB_zero_hA_he", rank=3, heads=[], rank_pattern={"q": 5}, share_a=True)
    assert AdapterConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_scaling_of_rank_stabilized_adapters():
    assert AdapterConfig(alpha=16).scaling(4, 16) == 4
    assert AdapterConfig(alpha=16, rank_stabilized=True).scaling(4, 16) == 8
