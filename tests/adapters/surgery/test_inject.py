"""Injection, removal and merging: the same layer before and after, and clear refusals."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    freeze_backbone,
    inject_adapters,
    merge_adapters,
    remove_adapters,
    reset_adapters,
    trainable_parameters,
    unmerge_adapters,
    untrained_adapters,
)
from tests.adapters.models import hf_inputs, hf_model, perturb, tiny_vit


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, dilation=1)
        self.fc1 = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc1(self.conv(x).mean((2, 3)))


def host(kind):
    torch.manual_seed(0)
    if kind == "conv2d":
        return Convolutional(), torch.randn(2, 3, 8, 8), ["conv", "fc1"]
    if kind == "conv1d":
        return hf_model("gpt2"), hf_inputs("gpt2"), ["q", "v", "mlp"]
    if kind == "interleaved":
        return hf_model("gpt_neox"), hf_inputs("gpt_neox"), ["q", "v", "o"]
    return tiny_vit(), torch.randn(2, 3, 32, 32), ["q", "v", "mlp"]


def run(model, inputs):
    return model(inputs) if isinstance(inputs, torch.Tensor) else model(**inputs).logits


KINDS = ("linear", "conv2d", "conv1d", "interleaved")


@pytest.mark.parametrize("kind", KINDS)
def test_remove_restores_class_keys_and_bits(kind):
    model, inputs, targets = host(kind)
    classes = {n: type(m) for n, m in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    out = run(model, inputs)
    inject_adapters(model, AdapterConfig(rank=2, targets=targets))
    perturb(model)
    merge_adapters(model)
    unmerge_adapters(model)
    head = {n for n, p in model.named_parameters() if p.requires_grad and "adapters" not in n}
    remove_adapters(model)
    assert {n: type(m) for n, m in model.named_modules()} == classes
    assert list(model.state_dict()) == list(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]) or name in head
    model.load_state_dict(state)
    assert torch.equal(run(model, inputs), out)


@pytest.mark.parametrize("kind", KINDS)
def test_adapted_layers_keep_identity_and_parameter_names(kind):
    model, _, targets = host(kind)
    modules = dict(model.named_modules())
    names = set(model.state_dict())
    inject_adapters(model, AdapterConfig(rank=2, targets=targets))
    for name, layer in adapter_layers(model).items():
        assert layer is modules[name]
        assert isinstance(layer, (nn.Linear, nn.Conv2d)) or type(layer).__mro__[2].__name__ == "Conv1D"
    assert names <= set(model.state_dict())
    assert all(".adapters." in name for name in set(model.state_dict()) - names)


@pytest.mark.parametrize("kind", KINDS)
def test_merge_leaves_a_plain_model_and_unmerge_restores_the_bits(kind):
    model, inputs, targets = host(kind)
    keys = list(model.state_dict())
    inject_adapters(model, AdapterConfig(rank=2, targets=targets))
    perturb(model)
    state = copy.deepcopy(model.state_dict())
    out = run(model, inputs)
    for _ in range(2):  # the second merge does nothing
        merge_adapters(model)
        assert list(model.state_dict()) == keys
        assert adapter_layers(model) == {}
        torch.testing.assert_close(run(model, inputs), out, rtol=1e-4, atol=1e-4)
    unmerge_adapters(model)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    assert torch.equal(run(model, inputs), out)


def test_merge_without_keeping_weights_is_final():
    model, _, targets = host("linear")
    inject_adapters(model, AdapterConfig(rank=2, targets=targets))
    perturb(model)
    merge_adapters(model, keep_weights=False)
    merged = copy.deepcopy(model.state_dict())
    unmerge_adapters(model)
    assert all(torch.equal(t, merged[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("kind", ["linear", "conv1d", "interleaved"])
@pytest.mark.parametrize("share_a", [False, True])
def test_delta_weight_has_the_weights_shape_and_is_zero_outside_the_slices(kind, share_a):
    model, _, _ = host(kind)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"], share_a=share_a))
    perturb(model)
    layer = next(iter(adapter_layers(model).values()))
    delta = layer.delta_weight()
    assert delta.shape == layer.weight.shape
    matrix = delta.T if kind == "conv1d" else delta
    for name, adapter in layer.adapters.items():
        expected = adapter.scaling * adapter.B @ adapter.A
        torch.testing.assert_close(layer.adapters.rows[name].take(matrix, 0), expected)
    assert (matrix.abs().sum(1) > 0).sum() == 2 * 24
    assert (layer.adapters["q"].factor_A is layer.adapters["v"].factor_A) == share_a


def test_injection_is_idempotent_and_refuses_another_configuration():
    model = tiny_vit()
    config = AdapterConfig(rank=2)
    first = inject_adapters(model, config)
    perturb(model)
    state = copy.deepcopy(model.state_dict())
    second = inject_adapters(model, AdapterConfig(rank=2))
    assert (second.trainable, second.total, len(second.layers)) == (first.trainable, first.total, len(first.layers))
    assert all(torch.equal(t, state[n]) for n, t in model.state_dict().items())
    with pytest.raises(
        RuntimeError, match=r"already adapted by another configuration .*`rank`, `seed`.*remove_adapters"
    ):
        inject_adapters(model, AdapterConfig(rank=3, seed=1))
    merge_adapters(model)
    with pytest.raises(RuntimeError, match="are merged"):
        inject_adapters(model, config)


def test_report_counts_and_table():
    model = tiny_vit()
    total = sum(p.numel() for p in model.parameters())
    report = inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"], rank_pattern={"v": 4}))
    q, v, head = 24 * 2, 24 * 4, 24 * 5 + 5
    assert report.trainable == 2 * (q + v) + head == sum(p.numel() for _, p in trainable_parameters(model))
    assert report.total == total + 2 * 2 * (q + v)
    assert [(r.layer, r.slice, r.rank, r.trainable, r.frozen) for r in report.layers[:2]] == [
        ("blocks.0.attn.qkv", "q", 2, q, q),
        ("blocks.0.attn.qkv", "v", 4, v, v),
    ]
    table = str(report)
    assert "blocks.1.attn.qkv" in table
    assert f"trainable {report.trainable:,} of {report.total:,}" in table
    assert "trained in full: head" in table


def test_a_shared_A_counts_once():
    model = tiny_vit(depth=1)
    total = sum(p.numel() for p in model.parameters())
    report = inject_adapters(model, AdapterConfig(rank=2, share_a=True))
    assert report.total == total + 24 * 2 + 3 * 24 * 2
    assert sum(r.frozen for r in report.layers) == 24 * 2


def test_rank_and_alpha_patterns_take_roles_suffixes_and_globs():
    model = tiny_vit()
    config = AdapterConfig(
        rank=2, targets=["q", "mlp"], rank_pattern={"blocks.1.mlp.fc1": 5, "mlp": 3}, alpha_pattern={"mlp.fc*": 6},
    )  # fmt: skip
    inject_adapters(model, config)
    found = {n: (a.rank, a.scaling) for n, a in adapters_by_name(model).items()}
    assert found["blocks.0.attn.qkv.q"] == (2, 8)
    assert found["blocks.0.mlp.fc1.all"] == (3, 2)
    assert found["blocks.1.mlp.fc1.all"] == (5, 6 / 5)
    with pytest.raises(ValueError, match=r"`rank_pattern` key 'attn.proj' matches no adapted layer"):
        inject_adapters(tiny_vit(), AdapterConfig(rank=2, rank_pattern={"attn.proj": 4}))


def test_rank_stabilized_scaling_is_alpha_over_the_root_of_the_rank():
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(rank=4, alpha=6, rank_stabilized=True))
    assert {a.scaling for a in adapters_by_name(model).values()} == {3.0}


def test_reserved_ranks_add_nothing():
    model, inputs, _ = host("linear")
    reserved = copy.deepcopy(model)
    inject_adapters(model, AdapterConfig(rank=2))
    inject_adapters(reserved, AdapterConfig(rank=2, max_rank=5))
    for small, large in zip(adapters_by_name(model).values(), adapters_by_name(reserved).values(), strict=True):
        assert torch.equal(small.A, large.A)
        small.B.data.normal_()
        large.B.data.copy_(small.B)
        assert large.factor_B.shape[1] == 5
    out = run(reserved, inputs)
    torch.testing.assert_close(out, run(model, inputs))
    out.square().sum().backward()
    for adapter in adapters_by_name(reserved).values():
        assert adapter.factor_B.grad[:, 2:].abs().max() == 0 < adapter.factor_B.grad.abs().max()


def test_explicit_heads_and_none():
    model = tiny_vit()
    assert inject_adapters(model, AdapterConfig(rank=2, heads=["norm", "head"])).heads == ("norm", "head")
    assert model.norm.weight.requires_grad
    model = tiny_vit()
    assert inject_adapters(model, AdapterConfig(rank=2, heads=[])).heads == ()
    assert not model.head.weight.requires_grad


def test_head_of_a_backbone_inside_a_host():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = hf_model("distilbert")

    report = inject_adapters(Host(), AdapterConfig(rank=2))
    assert report.heads == ("model.pre_classifier", "model.classifier")


def test_half_precision_weights_get_float32_factors_and_double_ones_float64():
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        model = tiny_vit().to(dtype)
        inject_adapters(model, AdapterConfig(rank=2))
        assert {a.factor_B.dtype for a in adapters_by_name(model).values()} == {expected}
        out = model(torch.randn(1, 3, 32, 32, dtype=dtype))
        out.float().sum().backward()
        assert untrained_adapters(model) == []


def test_meta_backbone_is_drawn_once_its_weights_are_there():
    real = tiny_vit()
    with torch.device("meta"):
        model = tiny_vit()
    inject_adapters(model, AdapterConfig(rank=2, scheme="hB_zero_A_V"))
    assert adapters_by_name(model)["blocks.0.attn.qkv.q"].factor_A.is_meta
    model.to_empty(device="cpu")
    model.load_state_dict(real.state_dict(), strict=False)
    reset_adapters(model)
    inject_adapters(real, AdapterConfig(rank=2, scheme="hB_zero_A_V"))
    for one, other in zip(adapters_by_name(model).values(), adapters_by_name(real).values(), strict=True):
        torch.testing.assert_close(one.A, other.A)
        assert one.B.abs().max() == 0


def test_deepcopy_and_pickle_of_an_adapted_model(tmp_path):
    model, inputs, targets = host("conv1d")
    inject_adapters(model, AdapterConfig(rank=2, targets=targets, scheme="hB_U_A_V"))
    copied = copy.deepcopy(model)
    torch.save(model, tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=False)
    for other in (copied, loaded):
        torch.testing.assert_close(run(other, inputs), run(model, inputs))


def test_freeze_backbone_leaves_the_heads():
    model = tiny_vit()
    freeze_backbone(model, ["head"])
    assert [n for n, _ in trainable_parameters(model)] == ["head.weight", "head.bias"]


def test_a_layer_that_is_never_called_is_named():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.read = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return F.linear(self.used(x), getattr(self, "read").weight)  # noqa: B009  hidden from who reads the code

    model = Host()
    inject_adapters(model, AdapterConfig(rank=2, targets=["used", "read"]))
    model(torch.randn(2, 4)).sum().backward()
    assert untrained_adapters(model) == ["read.all"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"targets": ["attn.qkw"]}, r"'attn.qkw' matches no layer: did you mean attn.qkv"),
        ({"targets": ["query"]}, r"'query' matches no layer"),
        ({"targets": ["head"]}, r"'head' matches only layers that are heads or excluded: head"),
        ({"targets": ["q", "attn.qkv"]}, r"ask for the whole of `blocks.0.attn.qkv` and for its slices q at once"),
        ({"rank": 25}, r"`rank` is 25, but `blocks.0.attn.qkv` \(q\) is 24 x 24 and allows at most 24"),
        ({"rank_pattern": {"v": 30}}, r"`rank_pattern\['v'\]` is 30, but .* \(v\) .* at most 24"),
        ({"max_rank": 30}, r"`max_rank` is 30, but .* at most 24"),
        ({"exclude": ["nothing"]}, r"`exclude` entry 'nothing' matches no layer"),
        ({"heads": ["haed"]}, r"`heads` entry 'haed' matches no module: did you mean head"),
        ({"share_a": True, "rank_pattern": {"v": 3}}, r"`share_a` needs one rank for all slices"),
    ],
)
def test_bad_configurations_name_the_offender_and_leave_the_model_alone(config, message):
    model = tiny_vit()
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        inject_adapters(model, AdapterConfig(**{"rank": 2, **config}))
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    assert adapter_layers(model) == {}


def test_roles_that_a_model_lacks_are_answered_with_those_it_has():
    import timm

    model = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="'q' matches no layer of ConvNeXt, which has the roles mlp"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))
