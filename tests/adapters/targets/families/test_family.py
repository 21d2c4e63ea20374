"""Families of a user's own: known by model type or package, with roles, fused layouts and heads."""

from types import SimpleNamespace

import pytest
import torchvision
from torch import nn

from asym_lightning.adapters import AdapterConfig, Family, inject_adapters, register_family
from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families import family as registry
from asym_lightning.adapters.targets.families.family import GENERIC, family_of, known_roles
from asym_lightning.adapters.targets.families.layouts import contiguous
from tests.adapters.models import hf_model, tiny_vit


@pytest.fixture(autouse=True)
def own_families(monkeypatch):
    """What a test registers is forgotten after it."""
    for name in ("_BY_MODEL_TYPE", "_BY_PACKAGE", "_ROLES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_qkv, self.to_out, self.gate = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 6)


class Net(nn.Module):
    """A model of a user's own, which has no config that transformers would know."""

    def __init__(self, model_type: str | None = None) -> None:
        super().__init__()
        if model_type:
            self.config = SimpleNamespace(model_type=model_type, value_size=4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.readout = nn.Linear(6, 2)


ROLES = {"o": ["to_out"], "gate": ["gate"]}


def layers(report):
    return [(row.layer, row.slice) for row in report.layers]


def test_a_family_is_known_by_the_package_of_a_models_class():
    register_family(Family(ROLES, fused={"to_qkv": contiguous("q", "k", "v")}, heads=["readout"], packages=[__name__]))
    report = inject_adapters(Net(), AdapterConfig(rank=2, targets=["v", "o"]))
    assert layers(report) == [
        (f"blocks.{i}.{name}", part) for i in (0, 1) for name, part in (("to_qkv", "v"), ("to_out", "all"))
    ]
    assert report.heads == ("readout",)


def test_a_family_is_known_by_its_model_type_and_its_layout_reads_the_models_config():
    def layout(d_out, config):
        return {"q": Rows(0, d_out - config.value_size), "v": Rows(d_out - config.value_size, config.value_size)}

    assert family_of(Net("mine")) is GENERIC
    family = register_family(Family(ROLES, fused={"to_qkv": layout}, heads=[], model_types=["mine"]))
    assert family_of(Net("mine")) is family
    report = inject_adapters(Net("mine"), AdapterConfig(rank=2, targets=["v"]))
    assert {row.shape for row in report.layers} == {(4, 6)}


def test_a_role_of_its_own_is_a_target_and_a_model_without_it_says_which_it_has():
    assert "gate" not in known_roles()
    register_family(Family(ROLES, heads=[], packages=[__name__]))
    assert layers(inject_adapters(Net(), AdapterConfig(rank=2, targets=["gate"]))) == [
        ("blocks.0.gate", "all"), ("blocks.1.gate", "all"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"'gate' matches no layer of VisionTransformer, which has the roles q, k, v"):
        inject_adapters(tiny_vit(), AdapterConfig(rank=2, targets=["gate"]))


def test_the_longer_package_and_the_later_family_count():
    whole, part = (Family(ROLES, packages=[package]) for package in ("torchvision", "torchvision.models.resnet"))
    register_family(whole)
    register_family(part)
    assert family_of(torchvision.models.resnet18()) is part
    assert family_of(torchvision.models.vgg11()) is not whole  # torchvision.models is the longer one still
    again = register_family(Family(ROLES, packages=["torchvision.models.resnet"], model_types=["bert"]))
    assert family_of(torchvision.models.resnet18()) is again
    assert family_of(hf_model("bert")) is again
    assert family_of(nn.Linear(2, 2)) is None


def test_a_package_is_no_prefix_of_a_name():
    family = register_family(Family(ROLES, packages=[__name__[:-1]]))
    assert family_of(Net()) is not family


def test_a_family_that_no_model_can_be_of_is_refused():
    with pytest.raises(ValueError, match="needs `model_types` or `packages`"):
        register_family(Family(ROLES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": {"q": "to_q"}}, r"`roles\['q'\]` must be a list of names, got 'to_q'"),
        ({"roles": {}, "heads": "readout"}, "`heads` must be a list of names, got 'readout'"),
        ({"roles": {}, "packages": "timm"}, "`packages` must be a list of names, got 'timm'"),
        ({"roles": {}, "model_types": "bert"}, "`model_types` must be a list of names, got 'bert'"),
    ],
)
def test_a_name_in_place_of_a_list_is_refused(options, message):
    with pytest.raises(TypeError, match=message):
        Family(**options)
