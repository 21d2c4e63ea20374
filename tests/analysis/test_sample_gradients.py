"""Gradients of single samples: as one sample at a time has them, and their weighted sums."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Attention
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters
from asym_lightning.analysis.sample_gradients import SampleGradients

NUM_SAMPLES = 5


class Fused(nn.Module):
    """Tokens through timm's attention, whose q, k and v are one layer, a normalisation and a head."""

    def __init__(self, **adapter) -> None:
        super().__init__()
        self.attn, self.norm, self.head = Attention(6, num_heads=2, qkv_bias=True), nn.LayerNorm(6), nn.Linear(6, 3)
        inject_adapters(self, AdapterConfig(rank=2, targets=["q", "v"], heads=["norm", "head"], **adapter))

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.attn(x))).mean(1))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 2)
        inject_adapters(self, AdapterConfig(rank=2, targets=["first"], heads=["second"]))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x))).mean((2, 3))


class Twice(nn.Module):
    """A layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        inject_adapters(self, AdapterConfig(rank=2, targets=["layer"], heads=["head"]))

    def forward(self, x):
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))).mean(1))


def tokens(length):
    return torch.randn(NUM_SAMPLES, length, 6)


MODELS = {
    "slices": (lambda: Fused(), lambda: tokens(7)),
    "slices, few tokens": (lambda: Fused(), lambda: tokens(1)),
    "one A": (lambda: Fused(share_a=True), lambda: tokens(7)),
    "sparse A": (lambda: Fused(scheme="hB_zero_A_coordinate"), lambda: tokens(7)),
    "convolution": (Convolutional, lambda: torch.randn(NUM_SAMPLES, 2, 9, 8)),
    "twice": (Twice, lambda: tokens(2)),
}


def built(name):
    torch.manual_seed(0)
    model, inputs = MODELS[name][0](), MODELS[name][1]()
    for adapter in adapters_by_name(model).values():
        nn.init.normal_(adapter.factor_B)
    return model, inputs, torch.arange(NUM_SAMPLES) % 3


def one_at_a_time(model, inputs, labels):
    """The gradients of each sample's own loss, by parameter."""
    trained = [p for p in model.parameters() if p.requires_grad]
    each = [
        torch.autograd.grad(F.cross_entropy(model(inputs[i : i + 1]), labels[i : i + 1]), trained)
        for i in range(len(labels))
    ]
    return {id(p): torch.stack(of_samples) for p, of_samples in zip(trained, zip(*each, strict=True), strict=True)}


@pytest.mark.parametrize("name", MODELS)
def test_norms_and_sums_are_those_of_one_sample_at_a_time(name):
    model, inputs, labels = built(name)
    expected = one_at_a_time(model, inputs, labels)
    with SampleGradients(model).observed(NUM_SAMPLES) as gradients:
        F.cross_entropy(model(inputs), labels).backward()
    norms = torch.cat([g.flatten(1) for g in expected.values()], 1).norm(dim=1)
    torch.testing.assert_close(gradients.norms(), norms, rtol=1e-5, atol=0)
    weights = torch.rand(NUM_SAMPLES)
    sums = dict(gradients.weighted_sums(weights))
    assert {id(p) for p in sums} == set(expected) and len(expected) >= 3
    for parameter, summed in sums.items():
        own = torch.einsum("n,n...->...", weights, expected[id(parameter)])
        torch.testing.assert_close(summed, own, rtol=1e-5, atol=1e-6)
        # Attention to a single token gives q no gradient, whatever the weights.
        assert not torch.equal(summed, parameter.grad) or not own.any()
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["slices", "convolution"])
def test_they_are_in_float32_under_autocast(name):
    model, inputs, labels = built(name)
    with SampleGradients(model).observed(NUM_SAMPLES) as gradients:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
    assert gradients.norms().dtype == torch.float32
    for parameter, summed in gradients.weighted_sums(torch.ones(NUM_SAMPLES) / NUM_SAMPLES):
        assert summed.dtype == torch.float32
        torch.testing.assert_close(summed, parameter.grad, rtol=0.05, atol=0.01 * float(parameter.grad.norm()))


def test_no_sample_has_no_gradient():
    model, inputs, labels = built("slices")
    with SampleGradients(model).observed(0) as gradients:
        F.cross_entropy(model(inputs[:0]), labels[:0]).backward()
    assert gradients.norms().shape == (0,)
    assert all(not summed.any() for _, summed in gradients.weighted_sums(torch.ones(0)))


def test_what_is_not_known_is_refused_by_name():
    model = Fused(scheme="hB_zero_hA_he")
    with pytest.raises(ValueError, match=r"`attn.qkv.adapters.q.factor_A`, .* A is frozen"):
        SampleGradients(model)
    model = nn.Sequential(nn.Conv1d(4, 4, 1, groups=2), nn.BatchNorm1d(4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"for `0.weight`, `0.bias`, `1.weight`, `1.bias`; "):
        SampleGradients(model)
    with pytest.raises(ValueError, match="Nothing trains"):
        SampleGradients(nn.Linear(2, 2).requires_grad_(False))


def test_rows_that_are_of_no_sample_are_refused():
    model, inputs, _ = built("slices")
    with (
        pytest.raises(ValueError, match=r"`attn.qkv` is called with 5 rows in a batch of 3 samples"),
        SampleGradients(model).observed(3),
    ):
        model(inputs)
