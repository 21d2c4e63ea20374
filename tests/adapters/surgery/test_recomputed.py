"""Hosts that compute their blocks again in the backward pass of a function of their own."""

import copy
import functools
import inspect

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, remove_adapters
from asym_lightning.adapters.surgery.recomputed import _names_given_away, ask_for_input_gradients
from tests.adapters.models import tiny_vit


class Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, blocks):
        ctx.save_for_backward(x)
        ctx.blocks = blocks
        return blocks(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            ctx.blocks(x).backward(gradient)
        return x.grad, None


class Reversible(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

    def forward(self, x):
        return Recomputed.apply(x, self.blocks)


def adapted():
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(5, 8), "encoder": Reversible(), "head": nn.Linear(8, 2)})
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=["head"]))
    return model


def gradients(model, encode):
    out = model["head"](encode(model["embed"](torch.arange(5))))
    out.square().sum().backward()
    return {name: adapter.factor_B.grad for name, adapter in adapters_by_name(model).items()}


def test_adapters_get_the_gradients_that_they_get_without_the_function():
    model = adapted()
    plain = copy.deepcopy(model)
    found = gradients(model, model["encoder"])
    wanted = gradients(plain, plain["encoder"].blocks)
    assert wanted.keys() == found.keys() and len(wanted) == 2
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient)
        assert gradient.abs().sum() > 0


def test_nothing_asks_for_gradients_once_adapters_are_removed():
    model = adapted()
    remove_adapters(model)
    encoder = model["encoder"]
    assert not encoder._forward_pre_hooks and "input_gradient_hook" not in vars(encoder)
    assert not encoder(torch.ones(1, 8)).requires_grad


def wrapped(method):
    @functools.wraps(method)
    def call(*args):
        return method(*args)

    return call


class Wrapped(Reversible):
    @wrapped
    def forward(self, x):
        return (lambda y: Recomputed.apply(y, self.blocks))(x)


def test_a_call_in_a_wrapped_method_or_in_a_function_within_is_found():
    model = nn.ModuleDict({"encoder": Wrapped()})
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=[]))
    assert model["encoder"](torch.ones(1, 8)).requires_grad
    assert "input_gradient_hook" in vars(model["encoder"])


def test_sources_are_not_read_where_nothing_is_applied(monkeypatch):
    model, read = tiny_vit(), []
    _names_given_away.cache_clear()
    monkeypatch.setattr(inspect, "getsource", lambda thing: read.append(thing) or "")
    ask_for_input_gradients(model)
    assert not read
