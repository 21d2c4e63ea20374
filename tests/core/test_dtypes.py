"""Adapted layers in bfloat16 and float16, by autocast and by weight, against the dense formula in float64."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters
from asym_lightning.adapters.kernels.dropout import draw_seed, drop_
from asym_lightning.adapters.rank.change import set_rank
from asym_lightning.adapters.rank.groups import rank_groups
from asym_lightning.core.dtypes import at_least_float32, train_in_float32

D_IN, D_OUT, RANK, TOKENS = 24, 36, 4, 50
# Roundings on the way to one number, each by half a unit in the last place of what is added up: those of x, W, A, B, h
# and s B h, of their sum, and of the gradients' counterparts.
ROUNDINGS = 8


def adapted_model(path="auto", dropout=0.0, scheme="hB_rand_A_rand"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D_IN, D_OUT), nn.Linear(D_OUT, 3))
    config = AdapterConfig(scheme=scheme, rank=RANK, targets=["0"], heads=["1"], path=path, dropout=dropout)
    inject_adapters(model, config)
    train_in_float32(model, model)
    return model


def dense(W, b, A, B, x, g, *, mask, p, s):
    """Output and gradients of one adapted layer."""
    dropped = x * mask / (1 - p)
    h = dropped @ A.T
    gB = s * (g @ B)
    return {
        "out": x @ W.T + b + s * h @ B.T,
        "dx": g @ W + gB @ A * mask / (1 - p),
        "dB": s * g.T @ h,
        "dA": gB.T @ dropped,
    }


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed", "16-true"])
@pytest.mark.parametrize(
    ("path", "dropout", "scheme"),
    [
        ("two_gemm", 0.0, "hB_rand_A_rand"),
        ("two_gemm", 0.3, "hB_rand_A_rand"),
        ("packed", 0.0, "hB_rand_A_rand"),
        ("auto", 0.3, "hB_rand_hA_rand"),
    ],
    ids=lambda value: str(value),
)
def test_a_layer_is_the_dense_formula_but_for_roundings_of_its_dtype(precision, path, dropout, scheme):
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float16
    layer = adapted_model(path, dropout, scheme)[0]
    is_mixed = precision.endswith("mixed")
    if not is_mixed:
        layer.to(dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(TOKENS, D_IN, generator=generator).to(layer.weight.dtype).requires_grad_()
    g = torch.randn(TOKENS, D_OUT, generator=generator).to(dtype)
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype) if is_mixed else nullcontext():
        out = layer(x)
    out.backward(g)
    mask = torch.ones(TOKENS, D_IN)
    if dropout:
        torch.manual_seed(5)
        drop_(mask, draw_seed(), dropout)
        assert 0.5 < mask.mean() < 0.9
    adapter = layer.adapters["all"]
    operands = [t.detach().double() for t in (layer.weight, layer.bias, adapter.A, adapter.B, x, g)]
    options = {"mask": mask.double(), "p": dropout}
    exact = dense(*operands, **options, s=adapter.scaling)
    # A number that is rounded to n bits is off by 2^-n of what was added up for it, hence the absolute values.
    added_up = dense(*[t.abs() for t in operands], **options, s=adapter.scaling)
    found = {"out": out, "dx": x.grad, "dB": adapter.factor_B.grad}
    if adapter.factor_A.requires_grad:
        found["dA"] = adapter.factor_A.grad
    assert out.dtype == dtype and adapter.factor_B.grad.dtype == torch.float32
    limit = ROUNDINGS * torch.finfo(dtype).eps / 2
    for name, value in found.items():
        assert ((value.double() - exact[name]).abs() <= limit * added_up[name]).all(), name
    # Or else an update that is missing would not show.
    missing = (dense(*operands, **options, s=0)["out"] - exact["out"]).abs()
    assert (missing > limit * added_up["out"]).double().mean() > 0.5


@pytest.mark.parametrize("move", [lambda m: m.bfloat16(), lambda m: m.half(), lambda m: m.to(dtype=torch.bfloat16)])
def test_only_frozen_weights_become_narrower(move):
    model = adapted_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    move(model)
    for name, p in model.named_parameters():
        if name in ("0.weight", "0.bias"):
            assert p.dtype.itemsize == 2
        else:
            assert p.dtype == torch.float32 and torch.equal(p, before[name])
    assert model(torch.randn(2, D_IN, dtype=model[0].weight.dtype)).dtype == torch.float32
    assert {p.dtype for p in model.double().parameters()} == {torch.float64}


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_the_model_is_moved_apart_from_it(copied_by):
    model = adapted_model()
    copied = copied_by(model).double()
    assert copied[1].weight.dtype == torch.float64 and model[1].weight.dtype == torch.float32
    copied.float().bfloat16()
    assert copied[0].weight.dtype == torch.bfloat16 and copied[1].weight.dtype == torch.float32
    assert model[0].weight.dtype == torch.float32


def test_a_head_that_was_made_in_bfloat16_becomes_float32():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).bfloat16()
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=["1"]))
    train_in_float32(model, model)
    assert model[0].weight.dtype == torch.bfloat16 and model[1].weight.dtype == torch.float32


def test_modules_on_both_sides_of_the_backbone_take_its_dtype_and_their_own():
    stem, backbone, head, frozen = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(2, 2)
    module = nn.Sequential(stem, nn.Sequential(backbone), head, frozen)
    inject_adapters(module[1], AdapterConfig(rank=2, targets=["0"]))
    frozen.requires_grad_(False)
    train_in_float32(module, module[1])
    train_in_float32(module, module[1])  # a second call does nothing
    module.bfloat16()
    assert [m.weight.dtype for m in (stem, backbone, head, frozen)] == [
        torch.float32,
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    ]
    module(torch.randn(3, 4)).sum().backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def test_packed_bfloat16_weight_follows_an_A_in_float32_when_it_changes():
    model = adapted_model("packed").bfloat16()
    layer, x = model[0], torch.randn(5, D_IN).bfloat16()
    twin = adapted_model("two_gemm").bfloat16()[0]
    torch.testing.assert_close(layer(x), twin(x), rtol=0.02, atol=0.02)
    assert layer.weight.data_ptr() == layer.adapters._packed.data_ptr()
    for changed in (layer, twin):
        (group,) = rank_groups(changed).values()
        set_rank(group, 2)
    assert not torch.equal(layer.adapters["all"].factor_A, adapted_model()[0].adapters["all"].factor_A)
    torch.testing.assert_close(layer(x), twin(x), rtol=0.02, atol=0.02)


def test_tensors_are_drawn_in_float32_where_the_default_is_narrower():
    torch.set_default_dtype(torch.bfloat16)
    try:
        with at_least_float32():
            assert torch.zeros(1).dtype == torch.float32
        assert torch.zeros(1).dtype == torch.bfloat16
        torch.set_default_dtype(torch.float64)
        with at_least_float32():
            assert torch.zeros(1).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_adapters_alone_stay_in_float32_without_being_asked():
    model = nn.Sequential(nn.Linear(4, 4))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    model.half()
    assert {p.dtype for a in adapters_by_name(model).values() for p in a.parameters()} == {torch.float32}
