"""Experts that a mixture keeps in one parameter: every product gets the update, and is that of the dense weights."""

import copy

import peft
import pytest
import torch
import transformers as tf
from torch import nn

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
)
from tests.adapters.models import perturb

_SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
          "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}  # fmt: skip
_ROUTED = {"num_experts": 4, "num_experts_per_tok": 2}
MODELS = {
    "mixtral": lambda: tf.MixtralForCausalLM(
        tf.MixtralConfig(**_SIZES, intermediate_size=24, num_local_experts=4, num_experts_per_tok=2)
    ),
    "qwen3_moe": lambda: tf.Qwen3MoeForCausalLM(
        tf.Qwen3MoeConfig(**_SIZES, **_ROUTED, intermediate_size=24, moe_intermediate_size=8, decoder_sparse_step=1)
    ),
    # Keeps (experts, d_in, d_out), with biases.
    "gpt_oss": lambda: tf.GptOssForCausalLM(
        tf.GptOssConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2, intermediate_size=24)
    ),
    "granitemoe": lambda: tf.GraniteMoeForCausalLM(
        tf.GraniteMoeConfig(**{k: v for k, v in _SIZES.items() if k != "head_dim"}, intermediate_size=24,
                            num_local_experts=4, num_experts_per_tok=2)
    ),
}  # fmt: skip
# transformers before 5 keeps the experts of these in layers of their own; there PEFT takes the sides of the others the
# other way round.
IS_FORMER = tf.__version__ < "5"
OF_LAYERS = {"mixtral", "qwen3_moe"} if IS_FORMER else set()
of_parameters = pytest.mark.skipif(IS_FORMER, reason="experts are layers, or have other sides for PEFT")
IDS = torch.arange(3, 27).view(2, 12)


@pytest.fixture(params=[name for name in MODELS if name not in OF_LAYERS])
def plain(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    with torch.no_grad():
        for p in model.parameters():  # so that experts count for something
            if p.dim() > 1:
                p.mul_(10)
    return model


def experts_of(model):
    return {name: layer for name, layer in adapter_layers(model).items() if ".experts" in name or "moe" in name}


def dense_copy(plain, adapted):
    """The plain model with W + s B A of each expert written out."""
    dense = copy.deepcopy(plain)
    names = {id(module): name for name, module in adapted.named_modules()}
    with torch.no_grad():
        for layer in adapter_layers(adapted).values():
            ((parameter, _),) = layer.updates().items()
            weight = dense.get_submodule(names[id(layer.holder())]).get_parameter(parameter)
            weight.add_(written_out(layer, weight))
    return dense


def written_out(layer, weight):
    is_transposed = layer.is_transposed
    of_expert = (weight.mT if is_transposed else weight)[0].shape
    delta = torch.zeros(len(weight), *of_expert)
    for i in range(len(weight)):
        if list(layer.adapters) == ["all"]:
            adapter = layer.adapters["all"]
            B = adapter.B.unflatten(0, (len(weight), -1))[i]
        else:
            adapter = layer.adapters[str(i)]
            B = adapter.B
        delta[i] = adapter.scaling * B @ adapter.A
    return delta.mT if is_transposed else delta


@pytest.mark.parametrize("share_expert_a", [True, False])
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_outputs_and_gradients_are_those_of_dense_experts(plain, implementation, share_expert_a):
    if hasattr(plain.config, "_experts_implementation"):
        plain.config._experts_implementation = implementation
    model = copy.deepcopy(plain)
    config = AdapterConfig("hB_zero_hA_rand", rank=3, targets=["experts"], share_expert_a=share_expert_a)
    inject_adapters(model, config)
    perturb(model)
    assert adapter_layers(model) and experts_of(model) == adapter_layers(model)
    dense = dense_copy(plain, model).requires_grad_(True)
    out, wanted = model(IDS).logits, dense(IDS).logits
    with torch.no_grad():
        assert (plain(IDS).logits - wanted).abs().max() > 1e-2
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-4)
    out.square().mean().backward()
    wanted.square().mean().backward()
    names = {id(module): name for name, module in model.named_modules()}
    for layer in adapter_layers(model).values():
        G = dense.get_submodule(names[id(layer.holder())]).get_parameter(layer.parameter).grad
        G = (G.mT if layer.is_transposed else G).flatten(0, 1)
        scale = G.abs().max()
        for part, adapter in layer.adapters.items():
            own = layer.adapters.rows[part].take(G, 0)
            wanted_B, wanted_A = adapter.scaling * own @ adapter.A.T, adapter.scaling * adapter.B.T @ own
            torch.testing.assert_close(adapter.factor_B.grad, wanted_B, rtol=1e-3, atol=1e-4 * scale)
            torch.testing.assert_close(adapter.factor_A.grad, wanted_A, rtol=1e-3, atol=1e-4 * scale)


@of_parameters
def test_experts_of_no_token_get_no_gradient():
    torch.manual_seed(0)
    model = MODELS["mixtral"]()
    inject_adapters(model, AdapterConfig(rank=2, targets=["experts"]))
    perturb(model)
    counts = torch.zeros(4, dtype=torch.long)

    def count(module, inputs):
        counts.add_(torch.bincount(inputs[1].flatten(), minlength=4))

    experts = model.model.layers[0].mlp.experts
    experts.register_forward_pre_hook(count)
    model(IDS[:1, :1]).logits.square().sum().backward()
    grads = experts._modules["gate_up_proj"].adapters["all"].factor_B.grad.unflatten(0, (4, -1))
    assert sorted(counts.tolist()) == [0, 0, 1, 1]
    assert [bool(g.any()) for g in grads] == [bool(c) for c in counts]


@pytest.mark.parametrize("share_expert_a", [True, False])
def test_merging_unmerging_and_removing(plain, share_expert_a):
    model = copy.deepcopy(plain)
    inject_adapters(model, AdapterConfig(rank=2, targets=["experts", "q"], share_expert_a=share_expert_a))
    perturb(model)
    with torch.no_grad():
        out, state = model(IDS).logits, copy.deepcopy(model.state_dict())
        merge_adapters(model)
        assert list(model.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(model(IDS).logits, out, rtol=1e-4, atol=1e-4)
        unmerge_adapters(model)
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert torch.equal(model(IDS).logits, out)
        remove_adapters(model)
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert not any("parameter_hooks" in vars(m) for m in model.modules())


@pytest.mark.parametrize("share_expert_a", [True, False])
@pytest.mark.parametrize("include_frozen", [True, False])
def test_files_are_read_into_a_new_model(plain, tmp_path, include_frozen, share_expert_a):
    model = copy.deepcopy(plain)
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", share_expert_a=share_expert_a))
    perturb_B(model)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    other = copy.deepcopy(plain)
    load_adapters(other, tmp_path)
    assert adapters_by_name(other).keys() == adapters_by_name(model).keys()
    with torch.no_grad():
        torch.testing.assert_close(other(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)


def perturb_B(model):
    torch.manual_seed(2)
    with torch.no_grad():
        for adapter in adapters_by_name(model).values():
            adapter.factor_B.normal_(std=0.3)


@of_parameters
@pytest.mark.parametrize("share_expert_a", [True, False])
def test_peft_reads_our_files(plain, tmp_path, share_expert_a):
    model = copy.deepcopy(plain)
    inject_adapters(model, AdapterConfig(rank=2, targets=["experts", "v"], share_expert_a=share_expert_a))
    perturb(model)
    save_adapters(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path)).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)


@of_parameters
def test_we_read_the_files_of_peft(plain, tmp_path):
    names = [n for n, p in plain.named_parameters() if p.dim() == 3]
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["v_proj"], target_parameters=names)
    theirs = peft.get_peft_model(copy.deepcopy(plain), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    theirs.eval().save_pretrained(str(tmp_path))
    ours = copy.deepcopy(plain)
    load_adapters(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-4)


def with_a_dense_layer():
    torch.manual_seed(0)
    sizes = {**_SIZES, **_ROUTED, "intermediate_size": 24, "moe_intermediate_size": 8, "mlp_only_layers": [0]}
    return tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**sizes, decoder_sparse_step=1)).eval()


@pytest.mark.parametrize("targets", ["all-linear", "mlp", ["up_proj"]])
def test_peft_finds_the_dense_layers_beside_experts(tmp_path, targets):
    model = with_a_dense_layer()
    inject_adapters(model, AdapterConfig(rank=2, targets=targets))
    perturb(model)
    save_adapters(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(with_a_dense_layer(), str(tmp_path)).eval()
    ours = with_a_dense_layer()
    load_adapters(ours, tmp_path)
    with torch.no_grad():
        assert (with_a_dense_layer()(IDS).logits - model(IDS).logits).abs().max() > 1e-3
        torch.testing.assert_close(ours(IDS).logits, model(IDS).logits)
        torch.testing.assert_close(theirs(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-5)


def test_a_layer_that_peft_adapts_by_its_parameter_is_read(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["v_proj"], target_parameters=["layers.0.mlp.up_proj.weight"])
    theirs = peft.get_peft_model(with_a_dense_layer(), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    theirs.save_pretrained(str(tmp_path))
    ours = with_a_dense_layer()
    load_adapters(ours, tmp_path)
    assert "model.layers.0.mlp.up_proj" in adapter_layers(ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, rtol=1e-4, atol=1e-5)


@of_parameters
def test_all_linear_reaches_experts_and_the_report_counts_them():
    model = MODELS["mixtral"]()
    report = inject_adapters(model, AdapterConfig(rank=2, targets="all-linear"))
    assert "model.layers.0.mlp.experts.gate_up_proj" in [row.layer for row in report.layers]
    assert report.reach > 0.97


def test_a_model_without_experts_names_the_roles_that_it_has():
    with pytest.raises(ValueError, match=r"'experts' matches no layer of Sequential, which has the roles all-linear"):
        inject_adapters(nn.Sequential(nn.Linear(4, 4)), AdapterConfig(rank=2, targets=["experts"]))


@of_parameters
def test_packed_experts_are_refused_by_name():
    model = MODELS["mixtral"]()
    experts = model.model.layers[0].mlp.experts
    experts.down_proj = nn.Parameter(torch.zeros(experts.down_proj.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(
        ValueError, match=r"`model\.layers\.0\.mlp\.experts\.down_proj` is the weights of experts in num"
    ):
        inject_adapters(model, AdapterConfig(rank=2, targets=["experts"]))


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_autocast_is_as_near_to_float32_as_with_dense_weights(plain, rank):
    adapted = copy.deepcopy(plain)
    inject_adapters(adapted, AdapterConfig(rank=rank, targets=["experts"]))
    perturb(adapted, scale=0.1)
    dense = copy.deepcopy(adapted)
    merge_adapters(dense)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = adapted(IDS).logits.float(), dense(IDS).logits.float()
    exact = dense(IDS).logits
    assert (found - exact).norm() < 2 * (expected - exact).norm()


def test_a_compiled_model_computes_the_same(plain):
    inject_adapters(plain, AdapterConfig(rank=4, targets=["experts"]))
    perturb(plain, scale=0.1)
    expected = plain(IDS).logits
    compiled = torch.compile(plain, backend="aot_eager")
    torch.testing.assert_close(compiled(IDS).logits, expected, atol=1e-4, rtol=1e-4)
