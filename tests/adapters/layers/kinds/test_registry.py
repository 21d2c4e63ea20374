"""Kinds of layers: the rest of the package asks each the same questions, so one of a user's own is as good."""

import copy
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from asym_lightning.adapters import (
    AdaptedLayer,
    AdapterConfig,
    adapter_layers,
    adapter_state_dict,
    fill_checkpoint,
    inject_adapters,
    load_adapters,
    merge_adapters,
    register_kind,
    remove_adapters,
    restore_checkpoint,
    save_adapters,
    unmerge_adapters,
    untrained_adapters,
)
from asym_lightning.adapters.layers.kinds import registry
from asym_lightning.adapters.layers.kinds.linear import AdaptedLinear
from asym_lightning.adapters.layers.kinds.registry import host_kind, host_names, kind_of, kinds
from asym_lightning.adapters.rank.groups import rank_groups
from asym_lightning.adapters.rows import Rows
from tests.adapters.models import hf_model, perturb


@pytest.fixture(autouse=True)
def own_kinds(monkeypatch):
    """What a test registers is forgotten after it; what is read once for a library is known before."""
    kind_of(Conv1D(2, 2))
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


class LinearOfAnotherName(nn.Linear):
    pass


def test_a_kind_is_for_exactly_its_layer_and_a_subclass_is_named_and_refused():
    assert kind_of(nn.Linear(2, 2)) is AdaptedLinear
    assert kind_of(nn.ReLU()) is host_kind(nn.ReLU()) is None
    assert kind_of(LinearOfAnotherName(2, 2)) is None
    assert host_kind(LinearOfAnotherName(2, 2)) is AdaptedLinear
    with pytest.raises(ValueError, match=r"`0` is a LinearOfAnotherName, which.*nn\.Linear.*register a kind"):
        inject_adapters(nn.Sequential(LinearOfAnotherName(2, 2)), AdapterConfig(rank=1, targets=["0"]))


def test_kinds_for_another_library_are_read_when_a_model_brings_its_layer():
    code = (
        "import sys\n"
        "from torch import nn\n"
        "from asym_lightning.adapters import AdapterConfig, inject_adapters\n"
        "from asym_lightning.adapters.layers.kinds.registry import host_names, kind_of\n"
        "inject_adapters(nn.Sequential(nn.Linear(2, 2)), AdapterConfig(rank=1, targets=['0']))\n"
        "print(sorted({'transformers', 'bitsandbytes'} & set(sys.modules)), 'transformers.Conv1D' in host_names())\n"
        "from transformers.pytorch_utils import Conv1D\n"
        "print(kind_of(Conv1D(2, 2)).__name__, 'transformers.Conv1D' in host_names())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[] False", "AdaptedConv1D True"]


def test_what_is_no_kind_is_refused():
    with pytest.raises(TypeError, match="must be a subclass of AdaptedLayer"):
        register_kind(nn.Linear)
    with pytest.raises(TypeError, match=r"`Hostless.host` must be the class of layers"):
        register_kind(type("Hostless", (AdaptedLayer,), {}))
    with pytest.raises(TypeError, match=r"`Other.host` must be the class of layers"):
        register_kind(type("Other", (AdaptedLayer,), {"host": nn.Linear}))


def test_the_later_of_two_kinds_for_one_layer_counts_and_the_same_again_replaces_itself():
    class Mine(AdaptedLinear):
        pass

    before = len(kinds())
    register_kind(Mine)
    register_kind(Mine)
    assert kind_of(nn.Linear(2, 2)) is Mine
    assert len(kinds()) == before + 1
    assert host_names().count("nn.Linear") == 1


# A kind of a user's own: two weights in one layer, whose names are not `weight`, and rows that only the class knows


class KeyValue(nn.Module):
    """Keys and values, projected by a weight each; the output has the keys first."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.key_weight = nn.Parameter(torch.randn(d_out, d_in))
        self.value_weight = nn.Parameter(torch.randn(d_out, d_in))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, torch.cat([self.key_weight, self.value_weight]))


class AdaptedKeyValue(AdaptedLayer, KeyValue):
    host = KeyValue
    calls_adapters = False
    can_change_rank = False
    peft_names = ("pair_A", "pair_B")

    @classmethod
    def slices_of(cls, layer):
        half = len(layer.key_weight)
        return {"k": Rows(0, half), "v": Rows(half, half)}

    def weight_matrix(self):
        return torch.cat([self.key_weight, self.value_weight])

    def delta_weight(self):
        return self.adapters.delta_weight(self.weight_matrix())

    def updates(self):
        key, value = self.delta_weight().chunk(2)
        return {"key_weight": key, "value_weight": value}

    def forward(self, x):
        return F.linear(x, self.weight_matrix() + self.delta_weight())

    def to_peft(self, A, B):
        return A.T, B.T

    def from_peft(self, A, B):
        return A.T, B.T


class Host(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kv = KeyValue(6, 4)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.kv(x))


def adapted_host(**options):
    model = Host()
    report = inject_adapters(model, AdapterConfig(**{"rank": 2, "alpha": 3, "targets": ["k", "v"], **options}))
    return model, report


@pytest.fixture
def key_value():
    register_kind(AdaptedKeyValue)


def test_its_own_slices_are_targets_by_role_and_by_all_linear(key_value):
    _, report = adapted_host(targets=["v"])
    assert [(row.layer, row.slice, row.shape) for row in report.layers] == [("kv", "v", (4, 6))]
    _, report = adapted_host(targets="all-linear")
    assert [(row.layer, row.slice) for row in report.layers] == [("kv", "k"), ("kv", "v"), ("fc", "all")]
    model, _ = adapted_host(targets=["kv"])
    assert list(model.kv.adapters) == ["all"]


def test_it_merges_into_both_weights_and_unmerging_and_removing_give_back_the_bits(key_value):
    model, _ = adapted_host()
    perturb(model)
    state, x = copy.deepcopy(model.state_dict()), torch.randn(5, 6)
    out = model(x)
    k, v = model.kv.adapters["k"], model.kv.adapters["v"]
    plain = Host()
    merge_adapters(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model.kv.key_weight, plain.kv.key_weight + k.scaling * k.B @ k.A)
    torch.testing.assert_close(model.kv.value_weight, plain.kv.value_weight + v.scaling * v.B @ v.A)
    torch.testing.assert_close(model(x), out)
    unmerge_adapters(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    remove_adapters(model)
    assert type(model.kv) is KeyValue
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_A_V", "hB_zero_hA_he"])
@pytest.mark.parametrize("include_frozen", [True, False])
def test_it_is_saved_under_its_names_and_loaded(key_value, scheme, include_frozen, tmp_path):
    model, _ = adapted_host(scheme=scheme)
    perturb(model)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    if include_frozen:
        assert {name: tuple(t.shape) for name, t in tensors.items()} == {
            "base_model.model.kv.pair_A": (6, 4), "base_model.model.kv.pair_B": (4, 8),
        }  # fmt: skip
    other = Host()
    load_adapters(other, tmp_path)
    for name, tensor in adapter_state_dict(model).items():
        torch.testing.assert_close(adapter_state_dict(other)[name], tensor)
    x = torch.randn(5, 6)
    assert torch.equal(other(x), model(x))


def test_it_is_in_checkpoints_and_in_the_check_for_gradients(key_value):
    model, _ = adapted_host(heads=["fc"])
    perturb(model)
    checkpoint = {"state_dict": model.state_dict()}
    fill_checkpoint(model, checkpoint)
    assert set(adapter_state_dict(model)) <= set(checkpoint["state_dict"])
    assert "kv.key_weight" not in checkpoint["state_dict"]
    other, _ = adapted_host(heads=["fc"])
    restore_checkpoint(other, checkpoint)
    x = torch.randn(5, 6)
    assert torch.equal(other(x), model(x))
    model(x).sum().backward()
    assert untrained_adapters(model) == []
    other.fc(torch.randn(2, 8)).sum().backward()
    assert untrained_adapters(other) == ["kv.k", "kv.v"]


def test_a_rank_that_can_not_change_gets_no_room_to_and_is_left_out_of_schedules(key_value):
    model, _ = adapted_host(max_rank=3, targets=["k", "v", "fc"])
    assert {name: a.max_rank for name, a in model.kv.adapters.items()} == {"k": 2, "v": 2}
    assert model.fc.adapters["all"].max_rank == 3
    assert list(rank_groups(model)) == ["fc.all"]


def test_the_transposed_weights_of_gpt2_are_told_to_peft(tmp_path):
    model = hf_model("gpt2")
    inject_adapters(model, AdapterConfig(rank=2, targets=["q"]))
    assert all(layer.fan_in_fan_out for layer in adapter_layers(model).values())
