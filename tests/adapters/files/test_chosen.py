"""A's that were chosen once, for any run of the same backbone."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, reset_adapters
from asym_lightning.adapters.files.backbone import backbone_sample
from asym_lightning.adapters.files.chosen import ChosenA, check_chosen, read_chosen, save_chosen
from tests.adapters.models import tiny_vit


def adapted(**options):
    model = tiny_vit(depth=1)
    config = AdapterConfig("hB_zero_A_gradient", **{"rank": 3, "targets": ["q", "v", "mlp"], **options})
    inject_adapters(model, config, draw=False)
    return model


def chosen_for(model, rank=4):
    rows = {adapter.A_key: torch.randn(rank, adapter.d_in) for adapter in adapters_by_name(model).values()}
    return ChosenA("gradient", rows, {"num_batches": 8}, backbone_sample(model))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "A.safetensors"


@pytest.mark.parametrize("share_a", [False, True])
def test_what_is_written_is_read_and_fills_a_model(path, share_a):
    model = adapted(share_a=share_a)
    chosen = chosen_for(model)
    save_chosen(chosen, path)
    found = read_chosen(path)
    assert (found.rule, found.made_by, found.backbone) == ("gradient", {"num_batches": 8}, chosen.backbone)
    check_chosen(found, model, path)
    reset_adapters(model, statistics=found.factors)
    for adapter in adapters_by_name(model).values():
        assert torch.equal(adapter.A, chosen.factors[adapter.A_key][:3])
        assert not adapter.B.any()
    injected = tiny_vit(depth=1)
    inject_adapters(injected, next(iter(model.blocks)).attn.qkv.adapters.config, statistics=found.factors)
    assert torch.equal(injected.blocks[0].attn.qkv.adapters["q"].A, model.blocks[0].attn.qkv.adapters["q"].A)


def test_a_file_for_something_else_is_refused(path):
    model = adapted()
    chosen = chosen_for(model)

    def refused(model, message, **changes):
        with pytest.raises(ValueError, match=message):
            check_chosen(dataclasses.replace(chosen, **changes), model, path)

    refused(adapted(targets=["q", "k", "v"]), r"has no A for `blocks.0.attn.qkv.k`; it has those of blocks.0.attn")
    refused(adapted(share_a=True), r"no A for `blocks.0.attn.qkv.shared`.*`targets` and `share_a`")
    refused(adapted(rank=5), r"has rank 4 for `blocks.0.attn.qkv.q`, and rank 5 is asked for")
    other = adapted()
    other.blocks[0].attn.qkv.weight.detach().mul_(2)
    refused(other, r"another backbone: the weight of `blocks.0.attn.qkv` starts with .* here and with")
    longer = {name: torch.zeros(4, 7) for name in chosen.factors}
    refused(model, r"another backbone: A of `blocks.0.attn.qkv.q` should have rows of length 24, found \(4, 7\)",
            factors=longer)  # fmt: skip
    check_chosen(dataclasses.replace(chosen, backbone={}), other, path)  # a quantised one is not known again


def test_what_is_no_such_file_is_refused(path):
    with pytest.raises(FileNotFoundError, match="is no file of A's: there is no such file"):
        read_chosen(path)
    path.write_text("A")
    with pytest.raises(ValueError, match=r"is no file of A's as `asym-lightning calibrate` writes it \(Safetensor"):
        read_chosen(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is no file of A's"):
        read_chosen(path)


def test_rows_of_another_shape_are_refused_when_they_are_put_in():
    model = adapted()
    rows = dict(chosen_for(model).factors)
    with pytest.raises(ValueError, match=r"`blocks.0.attn.qkv.q` needs 3 rows of length 24, but .* is \(2, 24\)"):
        reset_adapters(model, statistics={**rows, "blocks.0.attn.qkv.q": torch.zeros(2, 24)})
