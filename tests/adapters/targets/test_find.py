"""What targets mean in models that are not all of plain linear layers."""

import dataclasses
import re

import pytest
import timm
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, adapters_by_name, inject_adapters
from asym_lightning.adapters.targets.patterns import matches
from tests.adapters.models import tiny_vit


class Router(nn.Linear):
    def forward(self, x):
        scores = super().forward(x)
        return scores.topk(1).values, scores


class Mixture(nn.Module):
    """A layer to adapt, a narrow one, one that computes in a way of its own, and convolutions of each kind."""

    def __init__(self):
        super().__init__()
        self.fc, self.gate, self.router = nn.Linear(12, 12), nn.Linear(12, 1), Router(12, 4)
        self.stem, self.deep, self.point = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)


def ranks(model):
    return {name.removesuffix(".all"): adapter.rank for name, adapter in adapters_by_name(model).items()}


def test_all_linear_takes_narrow_layers_at_the_rank_they_allow_and_at_the_strength_of_the_others():
    model = Mixture()
    report = inject_adapters(model, AdapterConfig(rank=8, alpha=16, targets="all-linear", max_rank=10))
    assert ranks(model) == {"fc": 8, "gate": 1, "point": 8}
    assert {a.scaling for a in adapters_by_name(model).values()} == {2.0}
    assert [a.max_rank for a in adapters_by_name(model).values()] == [10, 1, 8]
    assert {row.layer: row.rank for row in report.layers} == {"fc": 8, "gate": 1, "point": 8}


def test_a_rank_that_no_layer_allows_is_refused():
    with pytest.raises(ValueError, match=r"`rank` is 13, but each of the layers that `targets` mean allows at most 12"):
        inject_adapters(Mixture(), AdapterConfig(rank=13, targets="all-linear"))


def test_all_linear_leaves_out_what_computes_in_a_way_of_its_own_and_the_report_says_so():
    report = inject_adapters(Mixture(), AdapterConfig(rank=2, targets="all-linear"))
    assert report.left_out == {"router": "is a Router, which may compute its output in a way of its own"}
    assert "left out: router, which is a Router" in str(report)
    again = Mixture()
    first = inject_adapters(again, AdapterConfig(rank=2, targets="all-linear"))
    assert inject_adapters(again, AdapterConfig(rank=2, targets="all-linear")) == first


def test_a_layer_that_is_named_is_refused_as_before():
    with pytest.raises(ValueError, match=r"`router` is a Router, which may compute.*in `exclude`"):
        inject_adapters(Mixture(), AdapterConfig(rank=2, targets=["all-linear", "router"]))
    with pytest.raises(ValueError, match=r"`rank` is 8, but `gate` \(all\) is 1 x 12 and allows at most 1"):
        inject_adapters(Mixture(), AdapterConfig(rank=8, targets=["fc", "gate"]))
    with pytest.raises(ValueError, match=r"`rank_pattern\['gate'\]` is 3, but `gate`"):
        inject_adapters(Mixture(), AdapterConfig(rank=8, targets="all-linear", rank_pattern={"gate": 3}))


def test_targets_that_mean_only_what_can_not_be_adapted_say_why():
    model = nn.ModuleDict({"router": Router(4, 4)})
    with pytest.raises(ValueError, match=r"mean only layers that can't be adapted: `router` is a Router"):
        inject_adapters(model, AdapterConfig(rank=2, targets="all-linear"))


def test_all_conv_takes_every_convolution():
    model = Mixture()
    inject_adapters(model, AdapterConfig(rank=8, targets="all-conv"))
    assert ranks(model) == {"stem": 8, "deep": 8, "point": 8}
    model = Mixture()
    inject_adapters(model, AdapterConfig(rank=2, targets=["all-conv", "all-linear"]))
    assert list(adapter_layers(model)) == ["fc", "gate", "stem", "deep", "point"]


def test_a_model_of_convolutions_names_all_conv():
    model = timm.create_model("resnet10t", num_classes=3)
    with pytest.raises(ValueError, match=r"'q' matches no layer of ResNet, which has the roles all-linear, all-conv"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))
    report = inject_adapters(model, AdapterConfig(rank=4, targets="all-conv"))
    assert report.reach == 1.0 and not report.unreached


def test_modules_are_excluded_with_all_that_is_in_them():
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", exclude=["blocks.0", "mlp"]))
    assert list(adapter_layers(model)) == ["blocks.1.attn.qkv", "blocks.1.attn.proj"]


def test_two_stars_stand_for_any_number_of_components():
    assert matches("a.b.c.d", "a.**.d") and matches("a.d", "a.**.d") and matches("x.a.b.d", "a.**")
    assert not matches("a.b.c", "a.**.d")
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(rank=2, targets=["blocks.1.**.fc1"]))
    assert list(adapter_layers(model)) == ["blocks.1.mlp.fc1"]


def test_the_report_says_what_share_of_the_weights_is_reached_and_what_is_not():
    class WithRaw(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.raw = nn.Linear(10, 10), nn.Parameter(torch.randn(3, 10, 10))
            self.embedding = nn.Embedding(50, 10)

    report = inject_adapters(WithRaw(), AdapterConfig(rank=2, targets="all-linear"))
    assert report.reach == 0.25 and report.unreached == {"raw": 0.75}
    assert "adapted matrices hold 25% of the weights in matrices; others are raw (75%)" in str(report)


def test_the_report_names_attention_in_which_a_role_is_not_known():
    class SelfAttention(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(4, 4))

    model = nn.ModuleDict({"text": SelfAttention(["q_proj", "v_proj"]), "image": SelfAttention(["mix", "out"])})
    report = inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    assert report.unplayed == {"q": ("image",), "v": ("image",)}
    assert "no q is known in image" in str(report)


def blocks(**layers: tuple[int, int]) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(*shape) for name, shape in layers.items()})


def test_ranks_that_layers_do_not_allow_are_named_all_at_once():
    model = blocks(a=(4, 8), b=(3, 9), c=(16, 16))
    config = AdapterConfig(rank=8, targets=["a", "b", "c"])
    with pytest.raises(
        ValueError,
        match=r"`rank` is 8, but `a` \(all\) is 8 x 4 and allows at most 4, `b` \(all\) is 9 x 3 and allows at most 3; "
        "give these smaller ranks in `rank_pattern`, or name them in `exclude`",
    ):
        inject_adapters(model, config)
    assert not adapter_layers(model)
    with pytest.raises(ValueError, match=r"allows at most 4, `b` .* allows at most 3 and 1 more; give these") as raised:
        inject_adapters(model, dataclasses.replace(config, rank=17))
    assert len(str(raised.value)) <= 300
    inject_adapters(model, dataclasses.replace(config, rank_pattern={"a": 4, "b": 3}))


def test_torchs_own_transformer_is_refused_in_one_message():
    with pytest.raises(ValueError, match=r"`rank` is 32, but `encoder.*\(q\).*\(v\).*`decoder.*`rank_pattern`"):
        inject_adapters(nn.Transformer(16, 2, 1, 1, 32), AdapterConfig(rank=32))


def test_a_target_whose_slices_are_all_excluded_says_so():
    config = AdapterConfig(rank=2, targets=["k", "q"], exclude=["attn.qkv.q"])
    with pytest.raises(ValueError, match=r"'q' means only slices that are excluded: `blocks\.0\.attn\.qkv\.q`, "):
        inject_adapters(tiny_vit(), config)


def test_names_that_messages_print_are_excluded():
    model = nn.ModuleDict({"net": blocks(x=(8, 8), y=(8, 8)), "other": blocks(z=(8, 8))})
    inject_adapters(model, AdapterConfig(rank=2, targets=["all-linear"], exclude=["net.x.all", "other"]))
    assert list(adapter_layers(model)) == ["net.y"]
    vit = tiny_vit()
    inject_adapters(vit, AdapterConfig(rank=2, exclude=["blocks.0.attn.qkv.k", "attn.qkv.v"], targets=["q", "k"]))
    assert list(adapters_by_name(vit)) == [
        f"blocks.{name}" for name in ("0.attn.qkv.q", "1.attn.qkv.q", "1.attn.qkv.k")
    ]


@pytest.mark.parametrize("pattern", ["net.x.q", "q", "net.w.all"])
def test_names_that_no_message_prints_are_not(pattern):
    model = nn.ModuleDict({"net": blocks(x=(8, 8))})
    with pytest.raises(ValueError, match=f"`exclude` entry '{pattern}' matches no layer"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["all-linear"], exclude=[pattern]))


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (nn.Sequential(nn.ReLU()), "q", "no role that is known for it; it has no layer to adapt."),
        (nn.Sequential(nn.ReLU()), "foo", "matches no layer; there are none."),
        (nn.Sequential(nn.Linear(4, 4)), "q", "has the roles all-linear; other layers go by suffix: 0."),
        (nn.Sequential(nn.Linear(4, 4)), "o0", "did you mean 0?"),
    ],
)
def test_hints_name_what_the_model_has(model, target, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        inject_adapters(model, AdapterConfig(rank=2, targets=[target]))


def test_a_word_for_a_role_that_no_layer_plays_is_the_name_of_a_layer():
    model = nn.ModuleDict({"projector": nn.Linear(4, 4), "other": nn.Linear(4, 4)})
    inject_adapters(model, AdapterConfig(rank=2, targets=["projector"]))
    assert list(adapter_layers(model)) == ["projector"]
