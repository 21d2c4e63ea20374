"""Hosts that read a layer's weight and do not call the layer, always or in evaluation, read it with its update."""

import copy

import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
    unmerge_adapters,
    untrained_adapters,
)
from tests.adapters.models import perturb

_MAMBA = {"vocab_size": 60, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 4,
          "pad_token_id": 0}  # fmt: skip


class ReadInEvaluation(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = F.linear(x, self.first.weight, self.first.bias)
        return self.second(x) if self.training else F.linear(x, self.second.weight, self.second.bias)


def encoder():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


def wavlm():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
             "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2,
             "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}  # fmt: skip
    return tf.WavLMModel(tf.WavLMConfig(**sizes, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
                                        feat_proj_dropout=0.0, layerdrop=0.0))  # fmt: skip


HOSTS = {
    "read in evaluation": (ReadInEvaluation, lambda m: m(torch.randn(3, 6)), {"first", "second"}),
    "torch's encoder": (
        encoder, lambda m: m(torch.randn(3, 5, 8)), {"self_attn", "self_attn.out_proj", "linear1", "linear2"}
    ),
    "mamba": (
        lambda: tf.MambaForCausalLM(tf.MambaConfig(**_MAMBA)),
        lambda m: m(torch.arange(3, 13).view(2, 5)).logits,
        {f"backbone.layers.{i}.mixer.{n}" for i in range(2) for n in ("x_proj", "dt_proj", "out_proj")},
    ),
    "wavlm": (wavlm, lambda m: m(torch.randn(2, 400)).last_hidden_state, {
        f"encoder.layers.{i}.attention.{n}" for i in range(2) for n in ("q_proj", "k_proj", "v_proj", "out_proj")
    }),
}  # fmt: skip


@pytest.fixture(params=HOSTS)
def case(request):
    build, call, read = HOSTS[request.param]
    torch.manual_seed(0)
    model = build()

    def run(m):
        torch.manual_seed(1)
        return call(m)

    return model, run, read


def dense_copy(plain, adapted):
    """The plain model with W + s B A in the place of each adapted weight."""
    dense = copy.deepcopy(plain)
    with torch.no_grad():
        for name, layer in adapter_layers(adapted).items():
            for parameter, update in layer.updates().items():
                getattr(dense.get_submodule(name), parameter).add_(update)
    return dense


def test_outputs_are_those_of_dense_weights_in_training_and_in_evaluation(case):
    plain, run, read = case
    model = copy.deepcopy(plain)
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", scheme="hB_zero_hA_rand", heads=[]))
    assert read <= {name for name, layer in adapter_layers(model).items() if layer.adapters.is_read}
    perturb(model)
    dense = dense_copy(plain, model)
    for mode in (True, False):
        torch.testing.assert_close(run(model.train(mode)), run(dense.train(mode)), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert (run(model.eval()) - run(plain.eval())).abs().max() > 1e-3
        torch.testing.assert_close(run(model), run(dense.eval()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("host", HOSTS)
def test_gradients_are_those_of_full_fine_tuning_projected(host):
    build, call, _ = HOSTS[host]
    # In float64, for sums over the tokens are rounded in another order.
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = build().train()
        plain = copy.deepcopy(model)
        inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=[]))
        perturb(model)
        dense = dense_copy(plain, model).requires_grad_(True)
        for m in (model, dense):
            torch.manual_seed(1)
            call(m).pow(3).sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert untrained_adapters(model) == []
    for name, layer in adapter_layers(model).items():
        (parameter,) = layer.updates()
        G = getattr(dense.get_submodule(name), parameter).grad
        for slice_name, adapter in layer.adapters.items():
            wanted = adapter.scaling * layer.adapters.rows[slice_name].take(G, 0) @ adapter.A.T
            torch.testing.assert_close(adapter.factor_B.grad, wanted, rtol=1e-7, atol=1e-7 * float(G.abs().max()))
            assert wanted.abs().max() > 1e-3


def test_merging_unmerging_and_removing_are_exact(case):
    plain, run, _ = case
    model = copy.deepcopy(plain).eval()
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=[]))
    perturb(model)
    with torch.no_grad():
        out, state = run(model), copy.deepcopy(model.state_dict())
        merge_adapters(model)
        assert list(model.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(run(model), out, rtol=1e-4, atol=1e-5)
        unmerge_adapters(model)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(run(model), out)
        remove_adapters(model)
        # torch multiplies in another order, which rounds differently, what does and what doesn't require gradients.
        assert torch.equal(run(model), run(plain.eval().requires_grad_(False)))
        assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


def test_files_are_read_into_a_new_model(case, tmp_path):
    plain, run, _ = case
    model = copy.deepcopy(plain).eval()
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=[]))
    perturb(model)
    save_adapters(model, tmp_path)
    other = copy.deepcopy(plain).eval()
    load_adapters(other, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(run(other), run(model), rtol=1e-6, atol=1e-6)


def test_a_question_for_the_dtype_is_no_reading():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x.to(self.fc.weight.dtype))

    model = Asks()
    inject_adapters(model, AdapterConfig(rank=2, targets=["fc"]))
    assert not model.fc.adapters.is_read
    assert model.fc.weight is dict(model.named_parameters())["fc.weight"]


def test_the_frozen_parameter_of_a_layer_that_is_read_keeps_its_name_and_place():
    model = ReadInEvaluation()
    own = model.first.weight
    inject_adapters(model, AdapterConfig(rank=2, targets=["first"]))
    perturb(model)
    assert dict(model.named_parameters())["first.weight"] is own
    assert model.state_dict()["first.weight"].data_ptr() == own.data_ptr()
    adapter = adapters_by_name(model)["first.all"]
    torch.testing.assert_close(model.first.weight, own + adapter.scaling * adapter.B @ adapter.A)


def test_keys_of_another_width_are_refused_by_name():
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2, kdim=4, vdim=4)})
    with pytest.raises(ValueError, match=r"`attn` has keys or values of another width.*`exclude`"):
        inject_adapters(model, AdapterConfig(rank=2, targets=["attn"]))
