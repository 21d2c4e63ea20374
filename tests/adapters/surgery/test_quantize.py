"""A quantised backbone against the dense formula on its dequantised weight."""

import copy
import io
import json
import sys

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapter_state_dict,
    fill_checkpoint,
    inject_adapters,
    load_adapters,
    merge_adapters,
    quantize_backbone,
    remove_adapters,
    restore_checkpoint,
    save_adapters,
    trainable_parameters,
    unmerge_adapters,
    untrained_adapters,
)
from asym_lightning.adapters.surgery.quantize import quantized_layers
from asym_lightning.adapters.targets.heads import find_heads
from tests.adapters.models import hf_inputs, hf_model, perturb, tiny_vit

bnb = pytest.importorskip("bitsandbytes")
KINDS = ("nf4", "int8")
LAYER = {"rank": 3, "targets": ["0"], "heads": []}
FROZEN_A = AdapterConfig("hB_he_A_rand", **LAYER)


def one_layer(d_out=96, d_in=64, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d_in, d_out, dtype=dtype)).eval()


def quantized(kind, config=FROZEN_A, **kwargs):
    model = one_layer(**kwargs)
    quantize_backbone(model, kind)
    inject_adapters(model, config)
    return model


def quantized_vit(kind, **options):
    model = tiny_vit()
    quantize_backbone(model, kind, ["head"])
    inject_adapters(model, AdapterConfig(**{"scheme": "hB_he_A_rand", "rank": 2, **options}))
    return model


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def dequantized_by_hand(layer):
    """The dense weight in float64 from the stored numbers alone, without bitsandbytes' kernels."""
    state = layer.state_dict()
    if isinstance(layer, bnb.nn.Linear8bitLt):
        return state["weight"].double() * state["SCB"].double()[:, None] / 127
    packed = state["weight"].flatten()
    numbers = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    values = state["weight.quant_map"].double()[numbers.long()]
    return (values.view(-1, 64) * state["weight.absmax"].double().view(-1, 1)).view(layer.out_features, -1)


def stored(model):
    """Every quantised weight and scale."""
    return {
        f"{name}.{key}": value.clone()
        for name, layer in quantized_layers(model)
        for key, value in layer.state_dict().items()
        if not key.startswith(("adapters.", "bias"))
    }


def assert_equal_bits(a, b):
    assert a.keys() == b.keys() and a
    assert all(torch.equal(a[name], b[name]) for name in a)


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["auto", "plain", "two_gemm"])
@pytest.mark.parametrize("scheme", ["hB_he_A_rand", "hB_he_hA_rand", "B_rand_hA_he"])
def test_output_and_gradients_equal_the_dense_formula_on_the_dequantised_weight(kind, path, scheme):
    layer = quantized(kind, AdapterConfig(scheme, path=path, **LAYER))[0]
    adapter = layer.adapters["all"]
    x, g = torch.randn(2, 80, 64, requires_grad=True), torch.randn(2, 80, 96)
    W = dequantized_by_hand(layer)
    A, B, x64, bias = (t.detach().double().requires_grad_() for t in (adapter.A, adapter.B, x, layer.bias))
    dense = F.linear(x64, W, bias) + adapter.scaling * x64 @ A.T @ B.T
    out = layer(x)
    torch.testing.assert_close(out.double(), dense, rtol=1e-5, atol=1e-5)
    leaves = [(x, x64), (adapter.factor_A, A), (adapter.factor_B, B)]
    trained = [(ours, theirs) for ours, theirs in leaves if ours.requires_grad]
    ours = torch.autograd.grad(out, [leaf for leaf, _ in trained], g)
    theirs = torch.autograd.grad(dense, [leaf for _, leaf in trained], g.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dequantised_weight_is_the_nearest_of_those_that_there_are(kind):
    W = one_layer()[0].weight.detach().double()
    layer = quantized(kind)[0]
    error = (layer.weight_matrix().double() - W).abs()
    if kind == "int8":
        assert (error <= W.abs().amax(dim=1, keepdim=True) * (0.5 / 127 + 2**-11)).all()
    else:
        scale = W.view(-1, 64).abs().amax(dim=1)[:, None]
        levels = layer.weight.quant_state.code.double()
        nearest = (W.view(-1, 64, 1) / scale[..., None] - levels).abs().amin(dim=-1) * scale
        torch.testing.assert_close(error.view(-1, 64), nearest, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_error_is_within_that_of_a_dense_bf16_layer(kind):
    layer = quantized(kind, dtype=torch.bfloat16)[0]
    dense = one_layer(dtype=torch.bfloat16)
    with torch.no_grad():
        dense[0].weight.copy_(dequantized_by_hand(layer))
    inject_adapters(dense, FROZEN_A)
    x = torch.randn(300, 64, dtype=torch.bfloat16)
    W = dequantized_by_hand(layer) + layer.delta_weight().double()
    exact = F.linear(x.double(), W, layer.bias.double())
    error, error_of_dense = ((out.double() - exact).square().mean() for out in (layer(x), dense(x)))
    assert layer(x).dtype == torch.bfloat16
    assert error <= 1.05 * error_of_dense


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_without_adapter_is_linear_by_the_dequantised_weight_in_training_and_in_evaluation(kind):
    model = one_layer()
    quantize_backbone(model, kind)
    layer = model[0]
    x = torch.randn(2, 7, 64, requires_grad=True)
    W = dequantized_by_hand(layer).float()
    torch.testing.assert_close(layer.train()(x), F.linear(x, W, layer.bias), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), layer.train()(x))
    layer(x).sum().backward()  # after an evaluation
    torch.testing.assert_close(x.grad, W.sum(0).expand_as(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.bias.grad, torch.full((96,), 14.0))
    layer(x[0, 0]).sum().backward()  # of a vector, which nn.Linear takes too
    torch.testing.assert_close(layer.bias.grad, torch.full((96,), 15.0))


@pytest.mark.parametrize("kind", KINDS)
def test_backward_keeps_h_and_nothing_of_an_unadapted_layer(kind):
    model = nn.Sequential(one_layer()[0], nn.Linear(96, 96))
    quantize_backbone(model, kind)
    inject_adapters(model, FROZEN_A)
    parameters = {t.data_ptr() for t in model.parameters()}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) if t.data_ptr() not in parameters else None, lambda t: t
    ):
        model(torch.randn(100, 64, requires_grad=True))
    assert kept == [100 * 3]


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_bfloat16_and_gives_float32_gradients(kind):
    model = quantized_vit(kind)
    exact = model(images())
    with torch.autocast("cpu", torch.bfloat16):
        out = model.blocks[0].attn.qkv(torch.randn(4, 24))
        logits = model(images())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)
    logits.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for _, p in trainable_parameters(model))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients(kind):
    model = quantized_vit(kind, dropout=0.2).train()
    grads = []
    for recompute in (False, True):
        model.set_grad_checkpointing(recompute)
        torch.manual_seed(0)
        model(images()).square().sum().backward()
        grads.append([p.grad.clone() for _, p in trainable_parameters(model)])
        model.zero_grad()
    torch.testing.assert_close(*grads, rtol=0, atol=0)
    layer = model.blocks[0].attn.qkv
    x = torch.randn(4, 24, requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_graph_breaks(kind):
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64))
    quantize_backbone(model, kind)
    inject_adapters(model, FROZEN_A)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    results = []
    for run in (model, compiled):
        x = torch.ones(5, 64, requires_grad=True)
        out = run(x)
        out.square().sum().backward()
        results.append((out.detach(), x.grad, model[0].adapters["all"].factor_B.grad))
        model.zero_grad()
    # The eager pass sums in another order (narrow_products.c): as exact, but not where large terms cancel.
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(eager, traced, rtol=1e-6, atol=1e-6 * eager.abs().max().item())
    assert results[0][2].abs().sum() > 0


# --- what is quantised --------------------------------------------------------------------------------------------


def quantized_names(model):
    return {name for name, _ in quantized_layers(model)}


def test_linear_layers_of_the_backbone_are_quantised_and_heads_convolutions_and_embeddings_are_not():
    model = tiny_vit()
    before = {name: p.clone() for name, p in model.named_parameters()}
    part = quantize_backbone(model, "nf4", ["head"])
    wanted = {f"blocks.{i}.{name}" for i in (0, 1) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert quantized_names(model) == wanted
    assert (part.num_layers, part.num_weights) == (8, sum(before[f"{name}.weight"].numel() for name in wanted))
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in wanted:
            assert torch.equal(parameter, before[name]), name


def test_nf4_takes_4_and_a_half_bits_a_weight_and_int8_8_and_a_scale_a_row():
    sizes = [quantize_backbone(one_layer(512, 1024), kind).num_bytes for kind in KINDS]
    levels_and_description = 400
    assert sizes[0] == pytest.approx(512 * 1024 * 4.5 / 8, abs=levels_and_description)
    assert sizes[1] == pytest.approx(512 * 1024 + 4 * 512, abs=levels_and_description)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["roberta", "deberta-v2", "bart", "t5", "llama", "phi3", "falcon", "bloom", "vit"])
def test_families_compute_close_to_the_dense_model_and_train(name, kind):
    model = hf_model(name)
    inputs = hf_inputs(name)
    exact = model(**inputs).logits.detach()
    outputs = {n for n, _ in model.named_modules() if n in ("lm_head", "classifier")}
    quantize_backbone(model, kind, find_heads(model, None))
    assert quantized_names(model) and not outputs & quantized_names(model)
    quantized_logits = model(**inputs).logits
    tolerance = {"nf4": 0.35, "int8": 0.03}[kind]
    assert (quantized_logits - exact).norm() <= tolerance * exact.norm()
    inject_adapters(model, AdapterConfig(rank=2, targets=["all-linear"]))
    model(**inputs).logits.square().sum().backward()
    assert not untrained_adapters(model)
    inexact = next(p for n, p in model.named_parameters() if n.endswith("factor_B"))
    assert inexact.grad.isfinite().all() and inexact.grad.abs().sum() > 0


def test_layers_whose_dtype_t5_asks_stay_as_they_are():
    model = hf_model("t5")
    quantize_backbone(model, "nf4")
    assert not any(name.endswith(".wo") for name in quantized_names(model))


def test_numbers_that_a_host_cast_to_the_dtype_of_the_quantised_weight_are_refused():
    model = quantized("nf4")
    x = torch.randn(2, 64)
    for layer in (model[0], remove_adapters(model) or model[0]):
        with pytest.raises(TypeError, match=r"uint8.*can't be quantised"):
            layer(x.to(layer.weight.dtype))


def test_shared_layers_are_quantised_once():
    layer = nn.Linear(64, 64)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert quantize_backbone(model, "int8").num_layers == 1
    assert model[0] is model[2]


@pytest.mark.parametrize(
    ("model", "kind", "error", "message"),
    [
        (one_layer(), "int4", ValueError, "`quantization` must be one of nf4, int8, not 'int4'"),
        (nn.Sequential(nn.Conv2d(3, 3, 1)), "nf4", ValueError, "no nn.Linear"),
        (nn.Sequential(nn.Linear(4, 4, device="meta")), "nf4", RuntimeError, "weight of `0` is not loaded"),
        (one_layer(dtype=torch.float64), "int8", ValueError, "`0` is in float64"),
        (quantized("nf4"), "nf4", RuntimeError, "adapted already"),
    ],
)
def test_what_can_not_be_quantised_is_named(model, kind, error, message):
    with pytest.raises(error, match=message):
        quantize_backbone(model, kind)
    if not any(quantized_layers(model)):
        assert type(model[0]) in (nn.Linear, nn.Conv2d)


def test_a_second_quantisation_is_refused():
    model = one_layer()
    quantize_backbone(model, "nf4")
    with pytest.raises(RuntimeError, match="quantised already"):
        quantize_backbone(model, "int8")


def test_without_the_library_the_command_to_install_it_is_given(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"`quantization: nf4` .* pip install 'asym-lightning\[quantized\]'"):
        quantize_backbone(one_layer(), "nf4")


@pytest.mark.parametrize("path", ["packed", "formed"])
def test_paths_that_need_a_dense_weight_are_refused(path):
    model = one_layer()
    quantize_backbone(model, "nf4")
    with pytest.raises(ValueError, match=f"'{path}' needs a dense weight, and that of `0` is quantised"):
        inject_adapters(model, AdapterConfig(path=path, **LAYER))
    assert not adapter_layers(model)


# --- adapters on top ----------------------------------------------------------------------------------------------


def test_report_counts_weights_and_says_what_is_quantised():
    dense = tiny_vit()
    expected = inject_adapters(dense, AdapterConfig(rank=2))
    model = tiny_vit()
    quantize_backbone(model, "nf4", ["head"])
    report = inject_adapters(model, AdapterConfig(rank=2))
    assert (report.trainable, report.total) == (expected.trainable, expected.total)
    assert "quantised to nf4: 8 layers, 13,824 weights in" in str(report)
    assert "quantised" not in str(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_adapted_layers_are_bitsandbytes_layers_and_removing_gives_them_back(kind):
    model = quantized(kind)
    bits = stored(model)
    host = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}[kind]
    assert isinstance(model[0], host) and isinstance(model[0], nn.Linear)
    x = torch.randn(3, 64)
    bare = one_layer()
    quantize_backbone(bare, kind)
    remove_adapters(model)
    assert type(model[0]) is type(bare[0])
    assert_equal_bits(stored(model), bits)
    assert torch.equal(model(x), bare(x))


@pytest.mark.parametrize("scheme", ["hB_zero_A_V", "hB_U_A_rand"])
@pytest.mark.parametrize("kind", KINDS)
def test_svd_inits_are_of_the_dequantised_weight(kind, scheme):
    model = quantized(kind, AdapterConfig(scheme, **LAYER))
    dense = one_layer()
    with torch.no_grad():
        dense[0].weight.copy_(dequantized_by_hand(model[0]))
    inject_adapters(dense, AdapterConfig(scheme, **LAYER))
    for name, factor in adapter_state_dict(dense).items():
        torch.testing.assert_close(adapter_state_dict(model)[name], factor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_refused_unless_it_may_dequantise(kind):
    model = quantized_vit(kind)
    exact = model(images())
    with pytest.raises(ValueError, match=f"8 layers are quantised to {kind}.*`dequantize=True`.*`--dequantize`"):
        merge_adapters(model)
    assert torch.equal(model(images()), exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_model_is_a_plain_one_in_the_dtype_it_was_quantised_from(kind, dtype):
    model, plain = quantized(kind, dtype=dtype), one_layer(dtype=dtype)
    x = torch.randn(5, 64, dtype=dtype)
    W = dequantized_by_hand(model[0]) + model[0].delta_weight().double()
    merge_adapters(model, keep_weights=False, dequantize=True)
    assert type(model[0]) is nn.Linear and vars(model[0]).keys() == vars(plain[0]).keys()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model[0].weight.dtype == dtype
    torch.testing.assert_close(model[0].weight.double(), W, rtol=0, atol=torch.finfo(dtype).eps * W.abs().max().item())
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_dequantises_all_layers_and_unmerging_restores_the_bits(kind):
    model = quantized_vit(kind)
    bits, factors, classes = stored(model), adapter_state_dict(model), [type(m) for m in model.modules()]
    exact = model(images())
    for _ in range(2):
        merge_adapters(model, dequantize=True)
    assert not quantized_names(model) and type(model.blocks[0].mlp.fc1) is nn.Linear
    torch.testing.assert_close(model(images()), exact, rtol=1e-5, atol=1e-5)
    unmerge_adapters(model)
    assert [type(m) for m in model.modules()] == classes
    assert_equal_bits(stored(model), bits)
    assert_equal_bits(adapter_state_dict(model), factors)
    assert torch.equal(model(images()), exact)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_holds_what_was_trained_and_restores_it(kind, tmp_path):
    model, other = quantized_vit(kind), quantized_vit(kind)
    perturb(model)
    saved = {"state_dict": model.state_dict()}
    fill_checkpoint(model, saved)
    names = set(adapter_state_dict(model)) | {"head.weight", "head.bias"}
    assert {n for n in saved["state_dict"] if not n.endswith("_extra_state")} == names
    torch.save(saved, tmp_path / "a.ckpt")
    read = torch.load(tmp_path / "a.ckpt", weights_only=True)
    restore_checkpoint(other, read)
    other.load_state_dict(read["state_dict"], strict=True)
    assert torch.equal(other(images()), model(images()))


def test_checkpoint_over_another_quantisation_is_refused():
    saved = {"state_dict": quantized_vit("nf4").state_dict()}
    fill_checkpoint(quantized_vit("nf4"), saved)
    plain = tiny_vit()
    inject_adapters(plain, AdapterConfig("hB_he_A_rand", rank=2))
    with pytest.raises(ValueError, match="over a backbone that is quantised to nf4, this one is quantised to int8"):
        restore_checkpoint(quantized_vit("int8"), copy.deepcopy(saved))
    with pytest.raises(ValueError, match="quantised to nf4, this one is not quantised"):
        restore_checkpoint(plain, copy.deepcopy(saved))


@pytest.mark.parametrize("include_frozen", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_adapter_files_are_those_of_a_dense_backbone_and_load_into_either(kind, include_frozen, tmp_path):
    dense = tiny_vit()
    inject_adapters(dense, AdapterConfig("hB_he_A_rand", rank=2))
    model = quantized_vit(kind)
    perturb(dense), perturb(model)
    for name, adapted in (("dense", dense), ("quantised", model)):
        save_adapters(adapted, tmp_path / name, include_frozen=include_frozen)
    files = [tmp_path / name / "adapter_model.safetensors" for name in ("dense", "quantised")]
    assert_equal_bits(*map(load_file, files))
    configs = [json.loads(file.with_name("adapter_config.json").read_text()) for file in files]
    if not include_frozen:
        samples = [config["asym_lightning"].pop("backbone") for config in configs]
        assert samples[0] and not samples[1]  # weights in few bits are no sample of the dense ones
    assert configs[0] == configs[1]
    fresh = tiny_vit()
    quantize_backbone(fresh, kind, ["head"])
    load_adapters(fresh, tmp_path / "quantised")
    assert torch.equal(fresh(images()), model(images()))


@pytest.mark.parametrize("kind", KINDS)
def test_deepcopy_and_pickle(kind):
    model = quantized_vit(kind)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for copied in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(copied(images()), model(images()))


@pytest.mark.parametrize("kind", KINDS)
def test_another_dtype_of_the_module_leaves_the_quantised_weights_alone(kind):
    model = quantized_vit(kind)
    bits = stored(model)
    model.to(torch.bfloat16)
    assert_equal_bits(stored(model), bits)
    assert model(images().bfloat16()).dtype == torch.bfloat16


# --- models that their owner quantised ----------------------------------------------------------------------------


def own_layer(kind):
    """A layer of bitsandbytes as its documentation makes it."""
    source = one_layer()[0]
    if kind == "int8":
        layer = bnb.nn.Linear8bitLt(64, 96, has_fp16_weights=False)
    else:
        layer = bnb.nn.Linear4bit(64, 96, quant_type=kind.removesuffix("-dq"), compress_statistics=kind.endswith("-dq"))
    layer.load_state_dict(source.state_dict())
    return layer.to("cpu")


@pytest.mark.parametrize("kind", ["nf4", "nf4-dq", "fp4", "fp4-dq", "int8"])
def test_bitsandbytes_own_layers_are_adapted_and_given_back(kind):
    model = nn.Sequential(own_layer(kind))
    host_class = type(model[0])
    bits = stored(model)
    inject_adapters(model, FROZEN_A)
    layer = model[0]
    assert isinstance(layer, host_class)
    x = torch.randn(5, 64, requires_grad=True)
    W = layer.dense_weight(torch.float32) + layer.delta_weight()
    torch.testing.assert_close(layer(x), F.linear(x, W, layer.bias), rtol=1e-5, atol=1e-5)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, W.sum(0).expand_as(x), rtol=1e-4, atol=1e-4)
    error = (layer.weight_matrix().float() - one_layer()[0].weight).square().mean()
    assert error <= 0.02 * one_layer()[0].weight.square().mean()
    merge_adapters(model, dequantize=True)
    torch.testing.assert_close(model(x), F.linear(x, W, layer.bias), rtol=1e-5, atol=1e-5)
    remove_adapters(model)
    assert type(model[0]) is host_class
    assert_equal_bits(stored(model), bits)


def test_own_layers_beside_an_adapter_give_gradients_after_an_evaluation():
    model = nn.Sequential(one_layer(64, 64)[0], nn.ReLU(), own_layer("nf4")).eval()
    x = torch.randn(4, 64)
    with torch.no_grad():
        model(x)  # which lays the weight out for inference on some CPUs
    inject_adapters(model, FROZEN_A)
    with torch.no_grad():
        model(x)
    model.train()(x).square().sum().backward()
    W = dequantized_by_hand(model[2]).float()
    grad = model[0].adapters["all"].factor_B.grad.clone()
    model.zero_grad()
    F.linear(model[:2](x), W, model[2].bias).square().sum().backward()
    torch.testing.assert_close(grad, model[0].adapters["all"].factor_B.grad, rtol=1e-4, atol=1e-4)


def test_layers_with_a_forward_pass_of_another_kind_are_refused():
    class Other(bnb.nn.Linear4bit):
        def forward(self, x):
            return super().forward(x)

    for layer in (bnb.nn.Linear8bitLt(64, 96, has_fp16_weights=True), Other(64, 96)):
        with pytest.raises(ValueError, match=f"Layer `0` is a {type(layer).__name__}"):
            inject_adapters(nn.Sequential(layer), FROZEN_A)


def test_a_weight_of_another_library_is_refused():
    class OtherTensor(torch.Tensor):
        pass

    OtherTensor.__module__ = "other_library.tensors"
    model = one_layer()
    model[0].weight = nn.Parameter(model[0].weight.detach().as_subclass(OtherTensor), requires_grad=False)
    assert type(model[0].weight).__name__ == "OtherTensor"
    with pytest.raises(ValueError, match=r"`0` has a weight of type OtherTensor \(other_library\)"):
        inject_adapters(model, FROZEN_A)


def test_a_quantised_head_is_refused():
    model = nn.Sequential(one_layer(64, 64)[0], own_layer("nf4"))
    with pytest.raises(ValueError, match=r"head `1` is quantised.*`llm_int8_skip_modules`"):
        inject_adapters(model, AdapterConfig(targets=["0"], heads=["1"]))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_that_transformers_quantised_while_loading_is_adapted(bits, tmp_path):
    hf_model("llama").save_pretrained(tmp_path)
    options = {4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 8: {"load_in_8bit": True}}[bits]
    model = tf.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=tf.BitsAndBytesConfig(**options))
    report = inject_adapters(model, AdapterConfig(rank=2, targets=["q", "v"]))
    assert report.quantized.num_layers == 14
    inputs = hf_inputs("llama")
    exact = hf_model("llama")(**inputs).logits
    logits = model(**inputs).logits
    assert (logits - exact).norm() <= {4: 0.35, 8: 0.05}[bits] * exact.norm()
    logits.float().square().sum().backward()
    assert not untrained_adapters(model)


def test_nothing_of_bitsandbytes_is_imported_for_a_dense_model():
    import subprocess

    code = (
        "import sys; from torch import nn; from asym_lightning.adapters import *; "
        "inject_adapters(nn.Sequential(nn.Linear(4, 4)), AdapterConfig(rank=2, targets=['0'])); "
        "assert 'bitsandbytes' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
