"""What is exchanged, what a received file has to be, and in what two models differ."""

from __future__ import annotations

import json
import pickle
import re

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters
from asym_lightning.federated.exchange import adopt, average, difference, exchanged, identity, packed, unpacked


def model(width=6, seed=0, **options):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Linear(width, 3))
    inject_adapters(net, AdapterConfig(**{"rank": 2, "targets": ["0"], "heads": ["3"], **options}))
    return net


def test_b_and_heads_are_exchanged_and_nothing_else():
    sent, received = model(), model()
    for parameter in exchanged(sent).values():
        nn.init.normal_(parameter)
    data = packed(exchanged(sent))
    assert sorted(unpacked(data, exchanged(received))) == ["0.adapters.all.factor_B", "3.bias", "3.weight"]
    adopt(exchanged(received), unpacked(data, exchanged(received)))
    for name, parameter in sent.named_parameters():
        assert torch.equal(parameter, received.get_parameter(name)), name


def test_the_mean_of_b_is_the_mean_of_updates():
    models = [model() for _ in range(3)]
    for each in models:
        nn.init.normal_(adapters_by_name(each)["0.all"].factor_B)
    weights = [1, 2, 5]
    mean = model()
    adopt(exchanged(mean), average([(exchanged(m), w) for m, w in zip(models, weights, strict=True)]))
    expected = sum(w / 8 * m[0].delta_weight() for m, w in zip(models, weights, strict=True))
    torch.testing.assert_close(mean[0].delta_weight(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({}), "no safetensors file"),
        (packed({"w": torch.zeros(2)}), "lacks `b`"),
        (packed({"w": torch.zeros(2), "b": torch.zeros(1), "x": torch.zeros(1)}), "has an unknown `x`"),
        (packed({"w": torch.zeros(3), "b": torch.zeros(1)}), r"`w` of torch.float32 and shape \(3,\), not of"),
        (packed({"w": torch.zeros(2).half(), "b": torch.zeros(1)}), "`w` of torch.float16"),
        (packed({"w": torch.tensor([0.0, torch.nan]), "b": torch.zeros(1)}), "in `w` that are not finite"),
    ],
)
def test_anything_else_that_is_received_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        unpacked(data, {"w": torch.zeros(2), "b": torch.zeros(1)})


def test_equal_models_are_taken_for_such_whatever_has_been_trained():
    here, there = identity(model()), model()
    for parameter in exchanged(there).values():
        nn.init.normal_(parameter)
    assert difference(here, json.loads(json.dumps(identity(there)))) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "another backbone: its frozen weights are "),
        ({"rank": 3}, r"another rank and scaling of `0.all`: \[3, .*\] and here \[2, .*\]"),
        ({"alpha": 3}, "another rank and scaling of `0.all`"),
        ({"targets": ["0", "2"]}, "other targets: `2.all`"),
        ({"heads": ["2", "3"]}, "another backbone"),
        ({"scheme": "hB_zero_A_coordinate"}, "another A of `0.all`"),
    ],
)
def test_other_models_are_told_by_what_differs(options, message):
    assert re.search(message, str(difference(identity(model()), identity(model(**options)))))


def test_another_seed_of_the_adapter_is_another_A():
    torch.manual_seed(0)
    other = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    inject_adapters(other, AdapterConfig(rank=2, targets=["0"], heads=["3"], seed=9))
    assert "another A of `0.all`" in difference(identity(model()), identity(other))
    assert difference(identity(model()), "text") == "a description of another form"


def test_a_trained_A_and_a_model_without_adapters_are_refused():
    with pytest.raises(ValueError, match=r"A of `0.all` trains"):
        exchanged(model(scheme="hB_zero_hA_he"))
    with pytest.raises(ValueError, match="the module has none"):
        exchanged(nn.Linear(2, 2))
