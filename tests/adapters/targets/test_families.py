"""Roles in every family: the layers they name are called, trained, and are what the role says."""

import pytest
import timm
import torch
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    merge_adapters,
    trainable_parameters,
    untrained_adapters,
)
from asym_lightning.adapters.targets.families.family import ROLES
from tests.adapters.models import HF_MODELS, hf_inputs, hf_model, perturb, tiny_vit


def output_of(model, inputs):
    out = model(inputs) if isinstance(inputs, torch.Tensor) else model(**inputs).logits
    return out


TIMM = {
    "vit": ("vit_tiny_patch16_224", {}),
    "deit": ("deit_tiny_patch16_224", {}),
    "beit": ("beit_base_patch16_224", {}),
    "eva": ("eva02_tiny_patch14_224", {}),
    "swin": ("swin_tiny_patch4_window7_224", None),
    "swinv2": ("swinv2_tiny_window8_256", None),
    "convnext": ("convnext_atto", None),
    "cait": ("cait_xxs24_224", None),
    "pvt": ("pvt_v2_b0", None),
    "davit": ("davit_tiny", None),
}
SMALL = {
    "swin": {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2)},
    "swinv2": {
        "img_size": 32,
        "patch_size": 4,
        "window_size": 4,
        "embed_dim": 12,
        "depths": (1, 1),
        "num_heads": (1, 2),
    },
    "convnext": {"depths": (1, 1, 1, 1), "dims": (8, 8, 12, 12)},
    "cait": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "depth_token_only": 1},
    "davit": {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2), "window_size": 2},
    "pvt": {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)},
}


def timm_model(name):
    torch.manual_seed(0)
    architecture, kwargs = TIMM[name]
    if kwargs is None:
        return timm.create_model(architecture, num_classes=5, **SMALL[name]).eval()
    return tiny_vit(architecture, **kwargs)


MODELS = {**{f"hf-{n}": n for n in HF_MODELS}, **{f"timm-{n}": n for n in TIMM}}


def build(name):
    """A model and inputs in float64, where agreement means more."""
    kind, _, family = name.partition("-")
    if kind == "hf":
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in hf_inputs(family).items()}
        return hf_model(family).double(), inputs
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return timm_model(family).double(), images.double()


def roles_of(name):
    return ("mlp",) if "convnext" in name else ROLES


@pytest.mark.parametrize("name", MODELS)
def test_every_role_is_called_trained_and_equals_the_merged_weight(name):
    model, inputs = build(name)
    plain = output_of(model, inputs).detach()
    inject_adapters(model, AdapterConfig(rank=2, targets=roles_of(name), scheme="hB_zero_hA_rand"))
    torch.testing.assert_close(output_of(model, inputs), plain)  # B starts at zero; opened bypasses change nothing
    perturb(model)
    out = output_of(model, inputs)
    out.square().sum().backward()
    assert untrained_adapters(model) == []
    assert (out - plain).abs().max() > 1e-4
    merge_adapters(model)
    torch.testing.assert_close(output_of(model, inputs), out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_but_adapters_and_the_family_head_trains(name):
    model, _ = build(name)
    report = inject_adapters(model, AdapterConfig(rank=2, targets=roles_of(name)))
    for parameter_name, _ in trainable_parameters(model):
        is_head = any(parameter_name.startswith(f"{head}.") for head in report.heads)
        assert parameter_name.endswith("factor_B") or is_head, parameter_name
    assert not any(layer.startswith(head) for head in report.heads for layer in adapter_layers(model))


@pytest.mark.parametrize("name", [n for n in MODELS if "deberta" not in n and "convnext" not in n])
def test_slices_are_the_rows_that_the_host_reads_as_q_k_and_v(name):
    """Without v the attention's output is zero; without q it is what it is without k: equal attention to all."""
    model, inputs = build(name)
    inject_adapters(model, AdapterConfig(rank=1, targets=["q", "k", "v", "o"]))
    seen = {}
    for layer_name, layer in adapter_layers(model).items():
        if "all" in layer.adapters and _role(layer_name) == "o":
            layer.register_forward_pre_hook(lambda m, args, n=layer_name: seen.__setitem__(n, args[0].detach()))

    def attention_without(role):
        saved = {n: (layer.weight.detach().clone(), _bias(layer)) for n, layer in adapter_layers(model).items()}
        parents = _attention_biases(model)
        for n, layer in adapter_layers(model).items():
            for slice_name, rows in layer.adapters.rows.items():
                if slice_name == role or (slice_name == "all" and _role(n) == role):
                    with torch.no_grad():
                        rows.view(layer.weight_matrix(), 0).zero_()
                        if layer.bias is not None:
                            rows.view(layer.bias).zero_()
        for parent in parents:
            bias = getattr(parent, f"{role}_bias", None)
            if isinstance(bias, torch.Tensor):
                bias.data.zero_()
        output_of(model, inputs)
        for n, layer in adapter_layers(model).items():
            layer.weight.data.copy_(saved[n][0])
            if layer.bias is not None:
                layer.bias.data.copy_(saved[n][1])
        return {k: v.clone() for k, v in seen.items()}

    first = next(n for n, layer in adapter_layers(model).items() if "all" in layer.adapters and _role(n) == "o")
    assert attention_without("v")[first].abs().max() < 1e-6
    if "swinv2" in name:
        return  # cosine attention: a zero q has no direction
    without_q, without_k = attention_without("q")[first], attention_without("k")[first]
    torch.testing.assert_close(without_q, without_k, rtol=1e-4, atol=1e-6)
    output_of(model, inputs)
    if "pvt" not in name:  # at this size it attends to one key
        assert (seen[first] - without_q).abs().max() > 1e-7


def _role(layer_name):
    last = layer_name.rpartition(".")[2]
    table = {"q": "q", "k": "k", "v": "v", "query": "q", "key": "k", "value": "v"}
    return table.get(last.split("_")[0], "o" if last not in ("qkv", "kv") else "fused")


def _bias(layer):
    return None if layer.bias is None else layer.bias.detach().clone()


def _attention_biases(model):
    return [m for m in model.modules() if isinstance(getattr(m, "v_bias", None), nn.Parameter)]


def test_grouped_query_slices_have_their_true_shapes():
    model, _ = build("hf-phi3")
    inject_adapters(model, AdapterConfig(rank=2))
    shapes = {n.rpartition(".")[2]: (a.d_out, a.d_in) for n, a in adapters_by_name(model).items()}
    assert shapes == {"q": (24, 24), "k": (12, 24), "v": (12, 24)}


@pytest.mark.parametrize("name", ["hf-llama", "hf-gpt2", "hf-t5", "hf-bart"])
def test_all_linear_leaves_out_the_output_layer(name):
    model, _ = build(name)
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear"))
    assert not any("lm_head" in layer for layer in adapter_layers(model))
    assert type(model.lm_head) is nn.Linear
    assert (
        len(adapter_layers(model))
        == sum(type(m).__name__ in ("AdaptedLinear", "AdaptedConv1D", "Linear", "Conv1D") for m in model.modules()) - 1
    )


def test_a_multihead_attention_plays_its_roles():
    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = nn.MultiheadAttention(8, 2)
            self.fc1 = nn.Linear(8, 8)

    host = Host()
    inject_adapters(host, AdapterConfig(rank=2, targets=["q", "v", "o"]))
    assert [list(layer.adapters) for layer in adapter_layers(host).values()] == [["q", "v"], ["all"]]
    host = Host()
    inject_adapters(host, AdapterConfig(rank=2, targets="all-linear", exclude=["attn.out_proj"]))
    assert list(adapter_layers(host)) == ["attn", "fc1"]


def test_the_roles_of_torchs_encoder():
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    inject_adapters(encoder, AdapterConfig(rank=2, targets=["q", "k", "v", "o", "mlp"]))
    assert list(adapter_layers(encoder)) == ["self_attn", "self_attn.out_proj", "linear1", "linear2"]
