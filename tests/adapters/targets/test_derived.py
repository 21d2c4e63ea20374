"""Roles and rows that are found by names and by the code that takes a projection apart."""

import pytest
import torch
import transformers as tf
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters
from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.derived import order_in_code
from tests.adapters.models import hf_model


class Base(nn.Module):
    num_heads = 2

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)


class InOrderAttention(Base):
    def forward(self, x):
        qkv = self.qkv(x).reshape(len(x), -1, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.proj((q @ k.mT).softmax(-1) @ v)


class ByHeadAttention(Base):
    def forward(self, x):
        qkv = self.qkv(x)
        q, k, v = qkv.view(len(x), -1, self.num_heads, 3 * 4).transpose(1, 2).chunk(3, dim=3)
        return self.proj((q @ k.mT).softmax(-1) @ v)


class ValuesFirstAttention(Base):
    def forward(self, x):
        v, q, k = self.qkv(x).chunk(3, dim=-1)
        return self.proj((q @ k.mT).softmax(-1) @ v)


class PartsFirstAttention(Base):
    def forward(self, x):
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.num_heads, 4).unbind(2)
        q, k = rotated(q, k)
        return self.proj((q @ k.mT).softmax(-1) @ v)


class WidthOfHeadsAttention(Base):
    def forward(self, x):
        qkv = self.qkv(x)
        qkv = qkv.view(len(x), 3, -1, 4)
        q, k, v = qkv.unbind(dim=-3)
        return self.proj((q @ k.mT).softmax(-1) @ v)


class PluralAttention(Base):
    def forward(self, x):
        qkv = self.qkv(x).reshape(len(x), -1, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.reshape(3, len(x) * self.num_heads, -1, 4).unbind(0)
        return self.proj((queries @ keys.mT).softmax(-1) @ values)


class GroupedAttention(nn.Module):
    """Fewer keys and values than queries, as in EXAONE 4.5's pictures."""

    def __init__(self, kv_width=4):
        super().__init__()
        self.num_heads, self.head_width, self.kv_width = 2, 4, kv_width
        self.qkv, self.proj = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x):
        qkv = self.qkv(x)
        q, k, v = qkv.split([self.num_heads * self.head_width, self.kv_width, self.kv_width], dim=-1)
        return self.proj((q.unflatten(-1, (2, 4)) @ k[..., None, :].mT).softmax(-1) * v.sum(-1, keepdim=True))


class SplitByAFunctionAttention(GroupedAttention):
    def forward(self, x):
        q, k, v = torch.split(self.qkv(x), (self.num_heads * self.head_width, self.kv_width, self.kv_width), -1)
        return self.proj((q.unflatten(-1, (2, 4)) @ k[..., None, :].mT).softmax(-1) * v.sum(-1, keepdim=True))


def rotated(q, k):
    return q, k


class StrangeAttention(Base):
    def forward(self, x):
        return self.proj(torch.roll(self.qkv(x), 1)[..., :8])


@pytest.mark.parametrize(
    ("cls", "order", "v"),
    [
        (InOrderAttention, ("qkv", "in order", ""), Rows(16, 8)),
        (ByHeadAttention, ("qkv", "by head", "self.num_heads"), Rows(8, 4, 2)),
        (PartsFirstAttention, ("qkv", "in order", ""), Rows(16, 8)),
        (WidthOfHeadsAttention, ("qkv", "in order", ""), Rows(16, 8)),
        (PluralAttention, ("qkv", "in order", ""), Rows(16, 8)),
        (ValuesFirstAttention, ("vqk", "in order", ""), Rows(0, 8)),
    ],
)
def test_rows_are_read_in_the_code(cls, order, v):
    assert order_in_code(cls, "qkv") == order
    model = nn.ModuleDict({"attn": cls()})
    inject_adapters(model, AdapterConfig(rank=2, targets=["v", "o"]))
    layers = adapter_layers(model)
    assert layers["attn.qkv"].adapters.rows == {"v": v}
    assert list(layers["attn.proj"].adapters) == ["all"]


@pytest.mark.parametrize("cls", [GroupedAttention, SplitByAFunctionAttention])
def test_blocks_of_sizes_of_their_own_are_read_in_the_code(cls):
    expression = "self.num_heads * self.head_width, self.kv_width, self.kv_width"
    assert order_in_code(cls, "qkv") == ("qkv", "of sizes", expression)
    model = nn.ModuleDict({"attn": cls()})
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    assert adapter_layers(model)["attn.qkv"].adapters.rows == {"q": Rows(0, 8), "v": Rows(12, 4)}


@pytest.mark.parametrize("kv_width", [3, None, 4.0])
def test_sizes_that_do_not_fill_the_projection_are_not_guessed(kv_width):
    model = nn.ModuleDict({"attn": GroupedAttention(kv_width)})
    with pytest.raises(ValueError, match=r"which rows of fused layers such as `attn.qkv` are q, k and v is not known"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))


def test_rows_that_are_not_understood_are_not_guessed():
    assert order_in_code(StrangeAttention, "qkv") is None
    model = nn.ModuleDict({"attn": StrangeAttention()})
    with pytest.raises(ValueError, match=r"which rows of fused layers such as `attn.qkv` are q, k and v is not known"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear"))
    assert list(adapter_layers(model)["attn.qkv"].adapters) == ["all"]


def test_a_role_that_attention_keeps_in_a_parameter_is_refused_by_its_name():
    model = tf.XLNetModel(tf.XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=24))
    with pytest.raises(ValueError, match=r"`layer.0.rel_attn.q` is a parameter that its module multiplies by itself"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))


def test_the_layout_of_lilt_attends_by_projections_of_its_own():
    config = tf.LiltConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    model = tf.LiltModel(config)
    inject_adapters(model, AdapterConfig(rank=2, targets=["v"]))
    assert [name.rpartition(".")[2] for name in adapter_layers(model)] == ["value", "layout_value"]


def test_decision_transformers_have_the_rows_of_gpt_2():
    model = tf.DecisionTransformerModel(tf.DecisionTransformerConfig(hidden_size=16, n_layer=1, n_head=2))
    inject_adapters(model, AdapterConfig(rank=2, targets=["v"]))
    assert adapter_layers(model)["encoder.h.0.attn.c_attn"].adapters.rows == {"v": Rows(32, 16)}


def test_names_play_roles_in_attention_and_in_mlps_alone():
    class OddAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.to_q, self.to_v, self.to_out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    class OddMLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1, self.to_q = nn.Linear(4, 4), nn.Linear(4, 4)

    model = nn.ModuleDict({"a": OddAttention(), "m": OddMLP(), "to_q": nn.Linear(4, 4)})
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v", "o", "mlp"]))
    assert list(adapter_layers(model)) == ["a.to_q", "a.to_v", "a.to_out", "m.w1"]


def test_attention_in_two_directions_plays_roles():
    class BiMultiHeadAttention(nn.Module):
        def __init__(self):
            super().__init__()
            names = ("vision_proj", "text_proj", "values_vision_proj", "values_text_proj", "out_vision_proj")
            for name in names:
                setattr(self, name, nn.Linear(4, 4))

    model = nn.ModuleDict({"attn": BiMultiHeadAttention(), "vision_proj": nn.Linear(4, 4)})
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    assert list(adapter_layers(model)) == ["attn.vision_proj", "attn.values_vision_proj", "attn.values_text_proj"]


def test_the_rows_of_keys_and_values_from_a_latent_are_known():
    class LatentAttention(nn.Module):
        num_heads, qk_nope_head_dim, v_head_dim = 2, 3, 4

        def __init__(self):
            super().__init__()
            self.q_a_proj, self.q_b_proj = nn.Linear(8, 4), nn.Linear(4, 10)
            self.kv_a_proj_with_mqa, self.kv_b_proj = nn.Linear(8, 6), nn.Linear(4, 14)

    model = nn.ModuleDict({"attn": LatentAttention()})
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    layers = adapter_layers(model)
    assert list(layers) == ["attn.q_a_proj", "attn.q_b_proj", "attn.kv_b_proj"]
    assert layers["attn.kv_b_proj"].adapters.rows == {"v": Rows(3, 4, 2)}


class MambaMixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.in_proj, self.x_proj, self.out_proj = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 4)
        self.conv1d = nn.Conv1d(8, 8, 3, groups=8)


class TinyDeltaAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj, self.f_a_proj = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


class TinyMultiModalProjector(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear_1 = nn.Linear(4, 4)


class TinyMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 4)


def mixed():
    return nn.ModuleDict(
        {"mamba": MambaMixer(), "delta": TinyDeltaAttention(), "projector": TinyMultiModalProjector(), "mlp": TinyMLP(),
         "multi_modal_projector": nn.Linear(4, 4)}
    )  # fmt: skip


def test_mixer_means_the_linear_layers_of_state_spaces_and_of_linear_attention_whatever_role_they_play():
    model = mixed()
    inject_adapters(model, AdapterConfig(rank=2, targets=["mixer"]))
    layers = adapter_layers(model)
    assert list(layers) == [
        "mamba.in_proj", "mamba.x_proj", "mamba.out_proj", "delta.q_proj", "delta.v_proj", "delta.f_a_proj",
    ]  # fmt: skip
    assert layers["mamba.x_proj"].adapters["all"].rank == 1  # as much as it allows
    model = mixed()
    inject_adapters(model, AdapterConfig(rank=2, targets=["q", "mixer"], exclude=["mamba"]))
    assert list(adapter_layers(model)) == ["delta.q_proj", "delta.v_proj", "delta.f_a_proj"]


def test_projector_means_what_lies_between_a_tower_and_a_language_model():
    model = mixed()
    inject_adapters(model, AdapterConfig(rank=2, targets=["projector"]))
    assert list(adapter_layers(model)) == ["projector.linear_1", "multi_modal_projector"]
    with pytest.raises(ValueError, match=r"'projector' matches no layer of MambaMixer, which has the roles mixer"):
        inject_adapters(MambaMixer(), AdapterConfig(rank=1, targets=["projector"]))


def test_the_report_says_which_roles_are_derived():
    report = inject_adapters(mixed(), AdapterConfig(rank=2, targets=["q", "mlp", "mixer"]))
    assert report.derived == {"q": ["delta.q_proj"], "mlp": ["mlp.fc1"]}
    assert "derived: q is delta.q_proj, by names and classes, for no family says so" in str(report)
    bert = inject_adapters(hf_model("bert"), AdapterConfig(rank=2, targets=["q", "mlp"]))
    assert bert.derived == {}
    encoder = nn.TransformerEncoderLayer(8, 2, 16)
    assert inject_adapters(encoder, AdapterConfig(rank=2, targets=["q"])).derived == {}


def test_projections_of_global_attention_play_the_same_roles():
    config = tf.LongformerConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        attention_window=[4],
    )  # fmt: skip
    model = tf.LongformerModel(config)
    inject_adapters(model, AdapterConfig(rank=2, targets=["q"], heads=[]))
    prefix = "encoder.layer.0.attention.self."
    assert list(adapter_layers(model)) == [f"{prefix}query", f"{prefix}query_global"]
