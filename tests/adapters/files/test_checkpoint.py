"""What a training checkpoint holds, and what it refuses."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_description,
    adapter_state_dict,
    adapters_by_name,
    check_adapter_description,
    check_trained_state_dict,
    fill_checkpoint,
    inject_adapters,
    load_trained_state_dict,
    restore_checkpoint,
    trained_state_dict,
)
from asym_lightning.adapters.files.checkpoint import RANDOM_STATE_KEY, restore_random_state
from asym_lightning.adapters.kernels import dropout
from asym_lightning.core.random_state import set_random_state
from tests.adapters.models import perturb, tiny_vit


def adapted(**kwargs):
    model = tiny_vit()
    inject_adapters(model, AdapterConfig(**{"rank": 2, **kwargs}))
    return model


def test_holds_adapters_heads_and_buffers_and_no_backbone():
    model = adapted()
    model.register_buffer("running", torch.zeros(3))
    state = trained_state_dict(model)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad and "adapters" not in n}
    assert frozen
    assert not frozen & set(state)
    assert {"head.weight", "head.bias", "running", "blocks.0.attn.qkv.adapters.q.factor_A"} <= set(state)


def test_restores_what_was_trained_and_the_active_rank():
    model, other = adapted(max_rank=5), adapted(max_rank=5)
    perturb(model)
    adapters_by_name(model)["blocks.0.attn.qkv.q"].rank = 4
    load_trained_state_dict(other, trained_state_dict(model))
    assert adapters_by_name(other)["blocks.0.attn.qkv.q"].rank == 4
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())


def test_is_read_with_weights_only(tmp_path):
    model = adapted()
    torch.save({"state": trained_state_dict(model), "of": adapter_description(model)}, tmp_path / "c.pt")
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    check_trained_state_dict(model, loaded["state"])
    check_adapter_description(model, loaded["of"])


def test_packed_adapters_are_not_saved_with_the_weights_they_share_memory_with():
    model = adapted(path="packed")
    model(torch.randn(1, 3, 32, 32))
    for tensor in trained_state_dict(model).values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_adapter_state_dict_holds_every_factor_and_loads():
    model, other = adapted(), adapted()
    perturb(model)
    state = adapter_state_dict(model)
    assert len(state) == 2 * len(adapters_by_name(model))
    assert all(".adapters." in name for name in state)
    assert other.load_state_dict(state, strict=False).unexpected_keys == []
    assert torch.equal(other.blocks[0].attn.qkv.delta_weight(), model.blocks[0].attn.qkv.delta_weight())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.0.attn.qkv.adapters.q.factor_B"), r"lacks `blocks.0.attn.qkv.adapters.q.factor_B`"),
        (lambda s: s.update({"new.weight": torch.zeros(1)}), r"has unknown `new.weight`"),
        (lambda s: s.update({"head.bias": torch.zeros(9)}), r"`head.bias` should be \(5,\), found \(9,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(change, message):
    model = adapted()
    state = {n: torch.ones_like(t) for n, t in trained_state_dict(model).items()}
    change(state)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_trained_state_dict(model, state)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_another_configuration_or_backbone_is_refused_with_expected_and_found():
    found = adapter_description(adapted())
    check_adapter_description(adapted(path="two_gemm"), found)
    with pytest.raises(ValueError, match=r"another adapter configuration: `rank` should be 3, found 2"):
        check_adapter_description(adapted(rank=3), found)
    with pytest.raises(ValueError, match=r"`scheme` should be 'hB_zero_hA_he', found 'hB_zero_A_rand'"):
        check_adapter_description(adapted(scheme="hB_zero_hA_he"), found)
    with pytest.raises(ValueError, match="the checkpoint has adapters, the model has none"):
        check_adapter_description(tiny_vit(), found)
    other = adapted()
    nn.init.normal_(other.blocks[1].mlp.fc1.weight)
    for block in other.blocks:
        nn.init.normal_(block.attn.proj.weight)
    with pytest.raises(ValueError, match=r"another backbone: frozen `blocks.* starts with"):
        check_adapter_description(other, found)
    check_adapter_description(adapted().bfloat16(), found)


def test_filling_and_restoring_a_checkpoint_is_exact_and_leaves_a_state_that_loads_strictly(tmp_path):
    model, other = adapted(max_rank=5), adapted(max_rank=5)
    perturb(model)
    adapters_by_name(model)["blocks.0.attn.qkv.q"].rank = 4
    checkpoint = {"state_dict": model.state_dict()}
    fill_checkpoint(model, checkpoint)
    expected = torch.rand(2), random.random(), np.random.rand()
    torch.save(checkpoint, tmp_path / "c.pt")

    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    restore_checkpoint(other, loaded)
    other.load_state_dict(loaded["state_dict"])
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())
    set_random_state(loaded["random_state"])
    assert torch.equal(expected[0], torch.rand(2))
    assert expected[1:] == (random.random(), np.random.rand())


def test_factors_are_drawn_on_the_cpu_whatever_the_default_device():
    """Lightning builds models with the accelerator as the default device."""
    for scheme in ("hB_rand_A_rand", "hB_he_A_he"):
        model, other = tiny_vit(), tiny_vit()
        inject_adapters(model, AdapterConfig(scheme=scheme, rank=2))
        with torch.device("meta"):
            inject_adapters(other, AdapterConfig(scheme=scheme, rank=2))
        assert all(torch.equal(t, other.state_dict()[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("there", ["C", "torch", "torch.nn.functional.dropout"])
@pytest.mark.parametrize("here", ["C", "torch", "torch.nn.functional.dropout"])
def test_dropout_drawn_by_other_kernels_is_warned_of_on_resume(monkeypatch, there, here):
    def saved_or_resumed(by):
        monkeypatch.setattr(dropout, "implementation", lambda device: by)
        return adapted(dropout=0.1, path="plain" if by == "torch.nn.functional.dropout" else "auto")

    model, checkpoint = saved_or_resumed(there), {}
    checkpoint["state_dict"] = model.state_dict()
    fill_checkpoint(model, checkpoint)
    state = checkpoint[RANDOM_STATE_KEY]
    expected = torch.rand(3)
    model = saved_or_resumed(here)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restore_random_state(model, state)
    assert torch.equal(torch.rand(3), expected)
    assert [f"drawn by {there}, and here it is drawn by {here}:" in str(w.message) for w in caught] == (
        [True] if here != there else []
    )


def test_without_dropout_kernels_do_not_matter_on_resume(monkeypatch):
    monkeypatch.setattr(dropout, "implementation", lambda device: 1 / 0)
    model = adapted()
    checkpoint = {"state_dict": model.state_dict()}
    fill_checkpoint(model, checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore_random_state(model, checkpoint[RANDOM_STATE_KEY])
        del checkpoint[RANDOM_STATE_KEY]["dropout"]  # a checkpoint of before
        restore_random_state(model, checkpoint[RANDOM_STATE_KEY])


@pytest.mark.parametrize("name", ["0.adapters.all.factor_B", "1.bias", "threshold"])
def test_numbers_that_are_none_are_refused_but_in_a_buffer(name):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.register_buffer("threshold", torch.tensor(1.0))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=["1"]))
    state = trained_state_dict(model)
    state[name] = torch.full_like(state[name], torch.nan)
    if name == "threshold":
        load_trained_state_dict(model, state)
        assert model.threshold.isnan()
    else:
        with pytest.raises(ValueError, match=f"NaN or infinity in `{name}`"):
            load_trained_state_dict(model, state)
