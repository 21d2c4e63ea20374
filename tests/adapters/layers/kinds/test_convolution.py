"""Convolutions against the dense kernel ``W + s B A``."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters
from asym_lightning.sharding import AdapterWrapPolicy
from tests.adapters.models import perturb

# class -> (function, input, options)
CONVOLUTIONS = {
    nn.Conv2d: (F.conv2d, (2, 3, 8, 9), {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0), "dilation": (1, 2)}),
}


@pytest.fixture(params=CONVOLUTIONS, ids=lambda cls: cls.__name__)
def case(request):
    """An adapted convolution in a model, an input, and the function of a dense kernel."""
    convolve, shape, options = CONVOLUTIONS[request.param]
    torch.manual_seed(0)
    model = nn.Sequential(request.param(3, 6, **options)).double()
    inject_adapters(model, AdapterConfig(rank=3, targets=["0"], scheme="hB_zero_hA_rand"))
    perturb(model)
    geometry = (model[0].stride, model[0].padding, model[0].dilation)
    return model, torch.randn(shape).double(), lambda x, kernel: convolve(x, kernel, model[0].bias, *geometry)


def dense_kernel(layer):
    adapter = layer.adapters["all"]
    return layer.weight + adapter.scaling * (adapter.B @ adapter.A).view_as(layer.weight)


def test_outputs_and_gradients_are_those_of_the_dense_kernel(case):
    model, x, dense = case
    adapter = model[0].adapters["all"]
    torch.testing.assert_close(model(x), dense(x, dense_kernel(model[0])))
    torch.testing.assert_close(model[0].delta_weight(), dense_kernel(model[0]) - model[0].weight)
    ours = torch.autograd.grad(model(x).square().sum(), [adapter.factor_A, adapter.factor_B])
    theirs = torch.autograd.grad(dense(x, dense_kernel(model[0])).square().sum(), [adapter.factor_A, adapter.factor_B])
    torch.testing.assert_close(ours, theirs)


def test_dropout_is_of_the_adapters_input_alone_and_in_training_alone():
    torch.manual_seed(0)
    for cls, (convolve, shape, options) in CONVOLUTIONS.items():
        model = nn.Sequential(cls(3, 6, **options))
        inject_adapters(model, AdapterConfig(rank=3, targets=["0"], scheme="hB_rand_A_rand", dropout=0.5))
        x = torch.randn(shape)
        geometry = (model[0].stride, model[0].padding, model[0].dilation)
        base = convolve(x, model[0].weight, model[0].bias, *geometry)
        torch.manual_seed(1)
        out = model.train()(x)
        torch.manual_seed(1)
        dropped = F.dropout(x, 0.5)
        update = convolve(dropped, model[0].delta_weight(), None, *geometry)
        torch.testing.assert_close(out, base + update, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.eval()(x), model(x))


def test_groups_and_other_padding_are_refused():
    for cls in CONVOLUTIONS:
        model = nn.Sequential(cls(4, 4, 3, groups=4))
        with pytest.raises(ValueError, match=r"`0` is a convolution with groups=4.*name it in `exclude`"):
            inject_adapters(model, AdapterConfig(rank=1, targets=["0"]))
        model = nn.Sequential(cls(4, 4, 3, padding=1, padding_mode="circular"))
        with pytest.raises(ValueError, match=r"`0` is a convolution with groups=1 and padding_mode='circular'"):
            inject_adapters(model, AdapterConfig(rank=1, targets=["0"]))


def test_all_linear_leaves_convolutions_out():
    for cls in CONVOLUTIONS:
        model = nn.ModuleDict({"conv": cls(4, 4, 3), "fc": nn.Linear(4, 4)})
        inject_adapters(model, AdapterConfig(rank=1, targets="all-linear"))
        assert list(adapter_layers(model)) == ["fc"]


def test_a_convolutions_adapter_is_no_unit_of_its_own_for_fsdp1():
    """It reads its factors, which FSDP1 gathers only for the module that holds them when that is called."""
    for cls in CONVOLUTIONS:
        model = nn.ModuleDict({"conv": cls(4, 4, 3), "fc": nn.Linear(4, 4)})
        inject_adapters(model, AdapterConfig(rank=1, targets=["conv", "fc"]))
        policy = AdapterWrapPolicy()
        assert policy(model, recurse=True, nonwrapped_numel=0)
        units = [name for name, module in model.named_modules() if policy(module, recurse=False, nonwrapped_numel=0)]
        assert units == ["fc.adapters"]
