"""Adapters that are off for a moment."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_disabled,
    adapters_enabled,
    inject_adapters,
    merge_adapters,
)
from tests.adapters.models import hf_inputs, hf_model, perturb, tiny_vit

CASES = {
    "vit": (lambda: tiny_vit(), lambda model: model(torch.ones(2, 3, 32, 32)), {}),
    "gpt2": (lambda: hf_model("gpt2"), lambda model: model(**hf_inputs("gpt2")).logits, {}),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
        lambda model: model(torch.ones(1, 3, 8)),
        {"targets": ["all-linear"]},
    ),
}


def adapted(case):
    make, run, options = CASES[case]
    torch.manual_seed(0)
    model = make()
    plain = copy.deepcopy(model)
    inject_adapters(model, AdapterConfig(rank=2, heads=[], **options))
    perturb(model)
    return model, plain, run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["vit", "gpt2"])
def test_what_comes_out_is_the_backbones_to_the_bit(case, dtype):
    model, plain, run = adapted(case)
    model, plain = model.to(dtype), plain.to(dtype)
    run = run if case == "gpt2" else lambda model: model(torch.ones(2, 3, 32, 32, dtype=dtype))
    names, before = list(model.state_dict()), run(model)
    with adapters_disabled(model):
        assert not adapters_enabled(model)
        assert torch.equal(run(model), run(plain))
        with adapters_disabled(model):  # nothing more to do
            pass
        assert not adapters_enabled(model)
    assert adapters_enabled(model)
    assert list(model.state_dict()) == names
    assert torch.equal(run(model), before)
    assert not torch.equal(run(model), run(plain))


def test_a_model_whose_host_reads_weights():
    model, plain, run = adapted("transformer")
    before = run(model)
    with adapters_disabled(model):
        torch.testing.assert_close(run(model), run(plain))
    assert torch.equal(run(model), before)


def test_an_error_within_leaves_the_adapters_on():
    model, _, run = adapted("vit")
    before = run(model)
    with pytest.raises(KeyError), adapters_disabled(model):
        raise KeyError
    assert torch.equal(run(model), before)


def test_training_with_a_reference_gives_gradients_to_the_adapters_alone():
    model, plain, run = adapted("vit")
    model.train()
    with adapters_disabled(model), torch.no_grad():
        reference = run(model)
    assert torch.equal(reference, run(plain))
    (run(model) - reference).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert {layer.adapters.training for layer in adapter_layers(model).values()} == {True}


def test_a_compiled_model_follows():
    model, plain, run = adapted("vit")
    compiled = torch.compile(model, backend="eager")
    before = run(compiled)
    with adapters_disabled(compiled):
        torch.testing.assert_close(run(compiled), run(plain))
    torch.testing.assert_close(run(compiled), before)


def test_merged_adapters_are_refused():
    model, _, _ = adapted("vit")
    merge_adapters(model)
    assert adapters_enabled(model)
    with (
        pytest.raises(RuntimeError, match="merged into the weights: call `unmerge_adapters`"),
        adapters_disabled(model),
    ):
        pass


def test_a_model_without_adapters_stays():
    model = nn.Linear(2, 2)
    assert not adapters_enabled(model)
    with adapters_disabled(model):
        assert type(model) is nn.Linear


def test_under_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, plain, run = adapted("vit")
        wrapped = DistributedDataParallel(model)
        with adapters_disabled(wrapped), torch.no_grad():
            reference = run(wrapped)
        assert torch.equal(reference, run(plain))
        (run(wrapped) - reference).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    finally:
        torch.distributed.destroy_process_group()
