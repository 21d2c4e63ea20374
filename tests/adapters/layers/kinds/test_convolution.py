"""Convolutions against the dense kernel ``W + s B A``, and `peft`'s reading and writing of them."""

import copy

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    unmerge_adapters,
)
from asym_lightning.sharding import AdapterWrapPolicy
from tests.adapters.models import perturb

# class -> (function, input, options)
CONVOLUTIONS = {
    nn.Conv1d: (F.conv1d, (2, 3, 20), {"kernel_size": 4, "stride": 3, "padding": 2, "dilation": 2}),
    nn.Conv2d: (F.conv2d, (2, 3, 8, 9), {"kernel_size": (3, 2), "stride": 2, "padding": (1, 0), "dilation": (1, 2)}),
    nn.Conv3d: (F.conv3d, (2, 3, 5, 6, 7), {"kernel_size": (1, 2, 3), "stride": (1, 2, 1), "padding": (0, 1, 2)}),
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


def test_merging_gives_the_dense_kernel_and_can_be_undone_to_the_bit(case):
    model, x, _ = case
    out, state = model(x), copy.deepcopy(model.state_dict())
    host = model[0].adapters.host_class
    merge_adapters(model)
    assert type(model[0]) is host and list(model.state_dict()) == ["0.weight", "0.bias"]
    torch.testing.assert_close(model(x), out)
    unmerge_adapters(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    remove_adapters(model)
    assert type(model[0]) is host
    assert torch.equal(model[0].weight, state["0.weight"])


def plain(cls):
    """A model with such a convolution. `peft` forgets the dilation, so there is none."""
    _, shape, options = CONVOLUTIONS[cls]
    torch.manual_seed(0)
    return nn.Sequential(cls(3, 6, **{**options, "dilation": 1}), nn.Flatten(), nn.LazyLinear(4)), torch.randn(shape)


@pytest.mark.parametrize("cls", CONVOLUTIONS, ids=lambda cls: cls.__name__)
def test_peft_reads_our_files_and_we_read_its(cls, tmp_path):
    model, x = plain(cls)
    model(x)
    bare = copy.deepcopy(model)
    inject_adapters(model, AdapterConfig(rank=3, alpha=5, targets=["0"]))
    perturb(model)
    save_adapters(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(bare), tmp_path / "ours").eval()
    torch.testing.assert_close(theirs(x), model.eval()(x), rtol=1e-5, atol=1e-5)
    theirs = peft.get_peft_model(copy.deepcopy(bare), peft.LoraConfig(r=2, lora_alpha=7, target_modules=["0"])).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapters(bare, tmp_path / "theirs")
    torch.testing.assert_close(bare.eval()(x), theirs(x), rtol=1e-5, atol=1e-5)


GROUPED = [
    {"groups": 2},
    {"groups": 4, "padding": 1, "padding_mode": "circular"},
    {"padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.parametrize("options", GROUPED)
@pytest.mark.parametrize("cls", CONVOLUTIONS, ids=lambda cls: cls.__name__)
def test_groups_and_other_padding_are_those_of_the_dense_kernel(cls, options):
    torch.manual_seed(0)
    model = nn.Sequential(cls(4, 8, 3, **options)).double()
    dense = copy.deepcopy(model)
    inject_adapters(model, AdapterConfig(rank=3, targets=["0"], scheme="hB_zero_hA_rand"))
    perturb(model)
    adapter = model[0].adapters["all"]
    assert (adapter.d_out, adapter.d_in) == (8, 4 // options.get("groups", 1) * 3 ** (model[0].weight.dim() - 2))
    dense[0].weight = nn.Parameter(dense_kernel(model[0]).detach())
    x = torch.randn(2, 4, *[6] * (model[0].weight.dim() - 2)).double()
    out, wanted = model(x), dense(x)
    torch.testing.assert_close(out, wanted)
    out.square().sum().backward()
    wanted.square().sum().backward()
    G = dense[0].weight.grad.flatten(1)
    torch.testing.assert_close(adapter.factor_B.grad, adapter.scaling * G @ adapter.factor_A.T)
    torch.testing.assert_close(adapter.factor_A.grad, adapter.scaling * adapter.factor_B.T @ G)
    merge_adapters(model)
    torch.testing.assert_close(model(x), wanted)


def test_slices_of_a_convolution_are_rows_of_its_kernel():
    class Attention(nn.Module):
        num_heads = 2

        def __init__(self):
            super().__init__()
            self.qkv = nn.Conv2d(4, 12, 1)

        def forward(self, x):
            q, k, v = self.qkv(x).reshape(len(x), 3, self.num_heads, 2, -1).unbind(1)
            return (q.mT @ k).softmax(-1) @ v.mT

    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": Attention()})
    dense, x = copy.deepcopy(model), torch.randn(2, 4, 3, 3)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    perturb(model)
    layer = model["attn"].qkv
    with torch.no_grad():
        for name, rows in {"q": slice(0, 4), "v": slice(8, 12)}.items():
            adapter = layer.adapters[name]
            dense["attn"].qkv.weight[rows] += (adapter.scaling * adapter.B @ adapter.A)[..., None, None]
    torch.testing.assert_close(model["attn"](x), dense["attn"](x))
    torch.testing.assert_close(layer.weight + layer.delta_weight(), dense["attn"].qkv.weight)


def test_all_linear_leaves_convolutions_out_but_those_of_a_window_of_one():
    for cls in CONVOLUTIONS:
        model = nn.ModuleDict(
            {"conv": cls(4, 4, 3), "grouped": cls(4, 4, 1, groups=2), "one": cls(4, 4, 1), "fc": nn.Linear(4, 4)}
        )
        inject_adapters(model, AdapterConfig(rank=1, targets="all-linear"))
        assert list(adapter_layers(model)) == ["one", "fc"]


def test_a_convolutions_adapter_is_no_unit_of_its_own_for_fsdp1():
    """It reads its factors, which FSDP1 gathers only for the module that holds them when that is called."""
    for cls in CONVOLUTIONS:
        model = nn.ModuleDict({"conv": cls(4, 4, 3), "fc": nn.Linear(4, 4)})
        inject_adapters(model, AdapterConfig(rank=1, targets=["conv", "fc"]))
        policy = AdapterWrapPolicy()
        assert policy(model, recurse=True, nonwrapped_numel=0)
        units = [name for name, module in model.named_modules() if policy(module, recurse=False, nonwrapped_numel=0)]
        assert units == ["fc.adapters"]
