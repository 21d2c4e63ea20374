"""Adapter directories: `peft` reads ours, we read those of `peft`, and nothing is half-written or half-loaded."""

import copy
import json
import warnings
from collections import OrderedDict

import peft
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapter_layers,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    merge_adapters,
    save_adapters,
)
from tests.adapters.models import hf_inputs, hf_model, perturb, tiny_vit

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc1(self.conv(x).mean((2, 3)))


# name -> (model, inputs, our targets, peft's targets)
CASES = {
    "roberta": (lambda: hf_model("roberta"), lambda: hf_inputs("roberta"), ["q", "v"], ["query", "value"]),
    "bart": (lambda: hf_model("bart"), lambda: hf_inputs("bart"), ["q", "k", "v"], ["q_proj", "k_proj", "v_proj"]),
    "llama": (lambda: hf_model("llama"), lambda: hf_inputs("llama"), ["q", "v", "mlp"], ["q_proj", "up_proj"]),
    "gpt2": (lambda: hf_model("gpt2"), lambda: hf_inputs("gpt2"), ["q", "v", "mlp"], ["c_attn", "c_fc"]),
    "gpt_neox": (lambda: hf_model("gpt_neox"), lambda: hf_inputs("gpt_neox"), ["q", "v"], ["query_key_value"]),
    "timm": (tiny_vit, lambda: torch.randn(2, 3, 32, 32), ["q", "v", "mlp"], ["qkv", "fc1"]),
    "conv2d": (Convolutional, lambda: torch.randn(2, 3, 8, 8), ["conv", "fc1"], ["conv", "fc1"]),
}


def run(model, inputs):
    return model(inputs) if isinstance(inputs, torch.Tensor) else model(**inputs).logits


def adapted(case, **kwargs):
    make, _, targets, _ = CASES[case]
    model = make()
    inject_adapters(model, AdapterConfig(**{"rank": 3, "alpha": 5, "targets": targets, **kwargs}))
    perturb(model)
    return model


@pytest.mark.parametrize("share_a", [False, True])
@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_hA_he"])
@pytest.mark.parametrize("case", CASES)
def test_peft_gives_the_same_logits_from_our_directory(case, scheme, share_a, tmp_path):
    make, inputs = CASES[case][0], CASES[case][1]()
    model = adapted(case, scheme=scheme, share_a=share_a)
    save_adapters(model, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r".*(Unexpected keyword|missing adapter keys)")
        theirs = peft.PeftModel.from_pretrained(make(), tmp_path).eval()
    expected = run(model.eval(), inputs)
    torch.testing.assert_close(run(theirs, inputs), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": "first", "alpha_pattern": "first"}])
@pytest.mark.parametrize("case", CASES)
def test_we_give_the_same_logits_from_a_directory_of_peft(case, options, tmp_path):
    make, inputs, _, targets = CASES[case]
    options = {k: {targets[0]: 5} if v == "first" else v for k, v in options.items()}
    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, **options)).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    model = make()
    load_adapters(model, tmp_path)
    inputs = inputs()
    expected = run(theirs, inputs)
    torch.testing.assert_close(run(model.eval(), inputs), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_peft_file_of_a_fused_layer_loads_into_slices_that_share_A(tmp_path):
    theirs = peft.get_peft_model(tiny_vit(), peft.LoraConfig(r=3, lora_alpha=5, target_modules=["qkv"])).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    model, x = tiny_vit(), torch.randn(2, 3, 32, 32)
    inject_adapters(model, AdapterConfig(rank=3, alpha=9, share_a=True, heads=[]))
    load_adapters(model, tmp_path)
    torch.testing.assert_close(model(x), theirs(x), rtol=1e-5, atol=1e-4)
    separate = tiny_vit()
    inject_adapters(separate, AdapterConfig(rank=1, alpha=1, heads=[]))
    with pytest.raises(ValueError, match=r"mixes the slices q, k, v of `blocks.0.attn.qkv`.*share_a: true"):
        load_adapters(separate, tmp_path)


def test_trained_heads_travel_with_the_adapter_in_both_directions(tmp_path):
    model, inputs = adapted("roberta"), hf_inputs("roberta")
    save_adapters(model, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / CONFIG).read_text())["modules_to_save"] == ["classifier"]
    config = peft.LoraConfig(r=3, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    theirs = peft.get_peft_model(hf_model("roberta"), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = hf_model("roberta")
    load_adapters(loaded, tmp_path / "theirs")
    torch.testing.assert_close(run(loaded, inputs), run(theirs, inputs))


def test_heads_in_a_list_are_read_by_peft(tmp_path):
    def build():
        torch.manual_seed(0)
        return timm.create_model("crossvit_9_240", num_classes=3, depth=((1, 1, 0),), embed_dim=(16, 16)).eval()

    model, x = build(), torch.randn(1, 3, 240, 240)
    inject_adapters(model, AdapterConfig(rank=2, targets=["v"]))
    perturb(model)
    save_adapters(model, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["modules_to_save"] == ["head.0", "head.1"]
    theirs, ours = peft.PeftModel.from_pretrained(build(), str(tmp_path)).eval(), build()
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(ours(x), model(x))
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-4, atol=1e-5)


class _Repeated(nn.Module):
    """A head whose name other modules' names end in: one that is adapted, one that is not, and one within it."""

    def __init__(self):
        super().__init__()
        self.fc_head, self.norm_head = nn.Linear(6, 6), nn.LayerNorm(6)
        self.head = nn.Sequential(OrderedDict(norm=nn.LayerNorm(6), head=nn.Linear(6, 3)))

    def forward(self, x):
        return self.head(self.norm_head(self.fc_head(x)))


def test_a_head_that_other_names_end_in_is_read_by_peft_and_so_named_by_us(tmp_path):
    def build():
        torch.manual_seed(0)
        return _Repeated()

    model, x = build(), torch.randn(2, 6)
    inject_adapters(model, AdapterConfig(rank=2, targets=["fc_head"], heads=["head"]))
    perturb(model)
    save_adapters(model, tmp_path / "ours")
    theirs, ours = peft.PeftModel.from_pretrained(build(), str(tmp_path / "ours")), build()
    load_adapters(ours, tmp_path / "ours")
    torch.testing.assert_close(ours(x), model(x))
    torch.testing.assert_close(theirs(x), model(x))
    save_file(load_file(tmp_path / "ours" / TENSORS), tmp_path / "ours" / TENSORS)  # without our header, as PEFT's are
    ours = build()
    load_adapters(ours, tmp_path / "ours")
    torch.testing.assert_close(ours(x), model(x))


@pytest.mark.parametrize("include_frozen", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_round_trip_restores_the_bits(case, include_frozen, tmp_path):
    make, inputs = CASES[case][0], CASES[case][1]()
    model = adapted(case, scheme="hB_zero_A_V")
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    other = make()
    load_adapters(other, tmp_path)
    for name, adapter in adapters_by_name(model).items():
        assert torch.equal(adapters_by_name(other)[name].A, adapter.A)
        assert torch.equal(adapters_by_name(other)[name].B, adapter.B)
    assert torch.equal(run(other.eval(), inputs), run(model.eval(), inputs))


def test_a_slice_specific_scaling_survives_the_joined_form(tmp_path):
    model, x = adapted("timm", alpha_pattern={"v": 11}, rank_pattern={"q": 2}), torch.randn(2, 3, 32, 32)
    save_adapters(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_vit(), tmp_path).eval()
    torch.testing.assert_close(theirs(x), model(x), rtol=1e-4, atol=1e-4)
    other = tiny_vit()
    load_adapters(other, tmp_path)
    torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)


def test_file_has_the_active_rank_only_and_loads_into_a_larger_room(tmp_path):
    model, inputs = adapted("roberta", max_rank=8), hf_inputs("roberta")
    for adapter in adapters_by_name(model).values():
        adapter.factor_A.data[3:] = 0  # perturb() filled the reserve, which a schedule keeps at zero
        adapter.factor_B.data[:, 3:] = 0
    save_adapters(model, tmp_path)
    assert {t.shape[0] for n, t in load_file(tmp_path / TENSORS).items() if "lora_A" in n} == {3}
    other = hf_model("roberta")
    load_adapters(other, tmp_path)
    torch.testing.assert_close(run(other, inputs), run(model, inputs))
    assert {a.rank for a in adapters_by_name(other).values()} == {3}


# --- the compact form ---------------------------------------------------------------------------------------------


def test_compact_file_holds_B_and_heads_and_is_about_half_of_pefts_on_square_layers(tmp_path):
    def wide():
        torch.manual_seed(0)
        return nn.ModuleDict({str(i): nn.Linear(256, 256) for i in range(6)})

    targets = [str(i) for i in range(6)]
    model = wide()
    inject_adapters(model, AdapterConfig(rank=8, targets=targets))
    perturb(model)
    save_adapters(model, tmp_path / "compact", include_frozen=False)
    peft.get_peft_model(wide(), peft.LoraConfig(r=8, target_modules=targets)).save_pretrained(tmp_path / "peft")
    sizes = [(tmp_path / d / TENSORS).stat().st_size for d in ("compact", "peft")]
    assert sizes[0] <= 0.55 * sizes[1]
    assert all("lora_B" in name for name in load_file(tmp_path / "compact" / TENSORS))


def test_compact_file_keeps_an_A_that_its_seed_does_not_give_back(tmp_path):
    model, inputs = adapted("roberta"), hf_inputs("roberta")
    changed = next(iter(adapters_by_name(model)))
    adapter = adapters_by_name(model)[changed]
    with torch.no_grad():
        adapter.factor_A.copy_(adapter.factor_A.flip(0))
    save_adapters(model, tmp_path, include_frozen=False)
    stored = [n for n in load_file(tmp_path / TENSORS) if "lora_A" in n]
    assert stored == [f"base_model.model.{changed}.lora_A.weight"]
    other = hf_model("roberta")
    load_adapters(other, tmp_path)
    assert torch.equal(run(other, inputs), run(model, inputs))


def test_compact_file_of_a_trained_A_holds_it(tmp_path):
    save_adapters(adapted("roberta", scheme="hB_zero_hA_he"), tmp_path, include_frozen=False)
    assert any("lora_A" in n for n in load_file(tmp_path / TENSORS))


def test_compact_file_is_refused_by_peft_and_by_another_backbone(tmp_path):
    model = adapted("roberta", scheme="hB_zero_A_V")
    save_adapters(model, tmp_path, include_frozen=False)
    with pytest.raises(Exception, match="ASYM_LIGHTNING_COMPACT"):
        peft.PeftModel.from_pretrained(hf_model("roberta"), tmp_path)
    other = hf_model("roberta")
    with torch.no_grad():
        other.roberta.encoder.layer[0].attention.self.query.weight.normal_()
    with pytest.raises(ValueError, match=r"query.all`, redrawn from seed 0, has checksum .* expects .* another seed"):
        load_adapters(other, tmp_path)
    assert adapter_layers(other) == {}


# --- nothing half-written, nothing half-loaded --------------------------------------------------------------------


def unchanged(model, state):
    return list(model.state_dict()) == list(state) and all(
        torch.equal(t, state[n]) for n, t in model.state_dict().items()
    )


def break_json(directory):
    (directory / CONFIG).write_text("{")


def other_method(directory):
    (directory / CONFIG).write_text('{"peft_type": "IA3"}')


def remove_config(directory):
    (directory / CONFIG).unlink()


def remove_tensors(directory):
    (directory / TENSORS).unlink()


def truncate(directory):
    data = (directory / TENSORS).read_bytes()
    (directory / TENSORS).write_bytes(data[: len(data) // 2])


def garble(directory):
    (directory / TENSORS).write_bytes(b"not a safetensors file")


def edit(directory, change):
    from safetensors import safe_open

    with safe_open(directory / TENSORS, "pt") as f:
        metadata = f.metadata()
    tensors = load_file(directory / TENSORS)
    change(tensors)
    save_file(tensors, directory / TENSORS, metadata)


def drop_one(directory):
    edit(directory, lambda t: t.pop(next(n for n in t if "lora_B" in n)))


def reshape_one(directory):
    edit(
        directory,
        lambda t: t.update({n: v[:, :-1].contiguous() for n, v in t.items() if "1.attention.self.query.lora_A" in n}),
    )


def add_foreign(directory):
    edit(directory, lambda t: t.update({"base_model.model.x.lora_magnitude_vector": torch.zeros(3)}))


def add_layer(directory):
    edit(directory, lambda t: t.update({f"base_model.model.extra.lora_{f}.weight": torch.zeros(3, 3) for f in "AB"}))


def no_factors(directory):
    edit(directory, lambda t: [t.pop(n) for n in list(t) if "lora" in n])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (break_json, ValueError, r"adapter_config.json` is not valid JSON"),
        (other_method, ValueError, r"should have peft_type LORA .* found 'IA3'"),
        (remove_config, FileNotFoundError, r"holds no adapter: it lacks adapter_config.json"),
        (remove_tensors, FileNotFoundError, r"it lacks adapter_model.safetensors"),
        (truncate, ValueError, r"adapter_model.safetensors` is damaged or no safetensors file"),
        (garble, ValueError, r"is damaged or no safetensors file"),
        (drop_one, ValueError, r"lacks `roberta.encoder.layer.0.attention.self.query.lora_B`"),
        (
            reshape_one,
            ValueError,
            r"does not fit `roberta.encoder.layer.1.attention.self.query` \(all\).*found A \(3, 23\)",
        ),
        (add_foreign, ValueError, r"holds `base_model.model.x.lora_magnitude_vector`, which is neither"),
        (add_layer, ValueError, r"adapts `extra`, which is not adapted in the model"),
        (no_factors, ValueError, r"holds no LoRA factors"),
    ],
)
@pytest.mark.parametrize("is_adapted", [False, True])
def test_damaged_directories_are_named_and_change_nothing(damage, error, message, is_adapted, tmp_path):
    save_adapters(adapted("roberta"), tmp_path)
    damage(tmp_path)
    model = adapted("roberta") if is_adapted else hf_model("roberta")
    before = copy.deepcopy(model.state_dict())
    grads = {n: p.requires_grad for n, p in model.named_parameters()}
    with pytest.raises(error, match=message):
        load_adapters(model, tmp_path)
    assert unchanged(model, before)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == grads


def test_another_head_is_refused(tmp_path):
    save_adapters(adapted("timm"), tmp_path)
    other = tiny_vit(num_classes=7)
    with pytest.raises(ValueError, match=r"holds `head.bias` \(5,\), the model has \(7,\)"):
        load_adapters(other, tmp_path)


def test_peft_features_beyond_plain_lora_are_refused(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["query"], use_dora=True)
    peft.get_peft_model(hf_model("roberta"), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lora_magnitude_vector|uses `use_dora`"):
        load_adapters(hf_model("roberta"), tmp_path)


def test_a_model_without_adapters_can_not_be_saved(tmp_path):
    with pytest.raises(RuntimeError, match="no adapters to save"):
        save_adapters(hf_model("roberta"), tmp_path / "new")
    model = adapted("roberta")
    merge_adapters(model)
    with pytest.raises(RuntimeError, match="merged ones must be unmerged"):
        save_adapters(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failed_save_leaves_the_old_files_whole(tmp_path, monkeypatch):
    save_adapters(adapted("roberta"), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("asym_lightning.adapters.files.directory.json_text", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_adapters(adapted("roberta", rank=2), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("use_dora", True, "`use_dora`"),
        ("lora_bias", True, "`lora_bias`"),
        ("bias", "lora_only", "`bias`"),
        ("init_lora_weights", "pissa", "`init_lora_weights: pissa`"),
        ("init_lora_weights", "olora", "`init_lora_weights: olora`"),
        ("alora_invocation_tokens", [1, 2], "`alora_invocation_tokens`"),
        ("layer_replication", [[0, 1]], "`layer_replication`"),
        ("use_qalora", True, "`use_qalora`"),
        ("a_field_of_tomorrow", 3, "`a_field_of_tomorrow`"),
    ],
)
def test_what_is_not_known_to_be_plain_lora_is_refused_by_its_name(tmp_path, field, value, named):
    config = peft.LoraConfig(r=2, target_modules=["query"])
    peft.get_peft_model(hf_model("roberta"), config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / CONFIG).read_text())
    model = hf_model("roberta")
    (tmp_path / CONFIG).write_text(json.dumps({**written, field: value}))
    with pytest.raises(ValueError, match=rf"uses {named}.*plain low-rank adapters"):
        load_adapters(model, tmp_path)
    assert adapter_layers(model) == {}
    (tmp_path / CONFIG).write_text(json.dumps(written))
    load_adapters(model, tmp_path)


class Nested(nn.Module):
    """A layer whose name ends with another's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.inner = nn.Linear(8, 8), nn.ModuleDict({"fc": nn.Linear(8, 8)})

    def forward(self, x):
        return self.inner["fc"](self.fc(x).tanh())


def test_every_reader_finds_one_rank_and_one_alpha(tmp_path):
    model, x = Nested(), torch.randn(3, 8)
    patterns = {"rank_pattern": {"inner.fc": 5, "fc": 2}, "alpha_pattern": {"inner.fc": 3, "fc": 40}}
    inject_adapters(
        model, AdapterConfig("hB_zero_hA_rand", rank=4, alpha=8, targets=["fc", "inner.fc"], heads=[], **patterns)
    )
    perturb(model)
    save_adapters(model, tmp_path)
    written, tensors = json.loads((tmp_path / CONFIG).read_text()), load_file(tmp_path / TENSORS)
    assert (written["r"], written["lora_alpha"]) == (5, 10)
    assert written["rank_pattern"] == written["alpha_pattern"] == {}
    assert {t.shape for name, t in tensors.items() if "lora_A" in name} == {(5, 8)}
    scaling = written["lora_alpha"] / written["r"]
    for name, layer in adapter_layers(model).items():
        A, B = (tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
        torch.testing.assert_close(scaling * B @ A, layer.delta_weight())
    theirs = peft.PeftModel.from_pretrained(Nested(), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(x), model(x))
    ours = Nested()
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(ours(x), model(x))
    assert {name: adapter.rank for name, adapter in adapters_by_name(ours).items()} == {"fc.all": 2, "inner.fc.all": 5}


def test_a_file_of_peft_that_holds_the_weight_of_an_adapted_output_layer_is_read(tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    theirs = peft.get_peft_model(hf_model("llama"), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    assert any("lm_head.base_layer.weight" in name for name in load_file(tmp_path / TENSORS))
    ours, inputs = hf_model("llama"), hf_inputs("llama")
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(run(ours, inputs), run(theirs, inputs), rtol=1e-5, atol=1e-5)
    other = hf_model("llama")
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    with pytest.raises(ValueError, match=r"was trained over another `lm_head.weight` than the model has"):
        load_adapters(other, tmp_path)
    assert adapter_layers(other) == {}


class Narrow(nn.Module):
    """Layers whose shapes allow a rank of at most 2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 9, 1)
        self.squeeze, self.stretch = nn.Linear(9, 2), nn.Linear(2, 7)

    def forward(self, x):
        return self.stretch(self.squeeze(self.conv(x).mean((2, 3))).tanh())


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "alpha_pattern": {"stretch": 9}}])
@pytest.mark.parametrize("is_adapted", [False, True])
def test_factors_of_a_higher_rank_than_a_layer_allows_load_as_ones_of_the_same_product(options, is_adapted, tmp_path):
    config = peft.LoraConfig(r=5, lora_alpha=3, target_modules=["conv", "squeeze", "stretch"], **options)
    theirs = peft.get_peft_model(Narrow(), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    ours, x = Narrow(), torch.randn(4, 2, 3, 3)
    if is_adapted:
        inject_adapters(ours, AdapterConfig("hB_zero_hA_he", rank=2, alpha=1, targets=["conv", "squeeze", "stretch"]))
    load_adapters(ours, tmp_path)
    assert {name: adapter.rank for name, adapter in adapters_by_name(ours).items()} == dict.fromkeys(
        ("conv.all", "squeeze.all", "stretch.all"), 2
    )
    torch.testing.assert_close(ours(x), theirs(x))
    save_adapters(ours, tmp_path / "again")
    again = peft.PeftModel.from_pretrained(Narrow(), tmp_path / "again").eval()
    torch.testing.assert_close(again(x), theirs(x))


def test_a_file_of_zero_factors_of_a_higher_rank_loads(tmp_path):
    theirs = peft.get_peft_model(Narrow(), peft.LoraConfig(r=5, target_modules=["squeeze"])).eval()
    theirs.save_pretrained(tmp_path)
    ours, x = Narrow(), torch.randn(4, 2, 3, 3)
    load_adapters(ours, tmp_path)
    torch.testing.assert_close(ours(x), Narrow()(x))


@pytest.mark.parametrize("include_frozen", [True, False])
@pytest.mark.parametrize("patterns", [{}, {"alpha_pattern": {"v": 9}}])
def test_an_adapter_keeps_its_own_strength_in_a_model_that_is_adapted_by_another(include_frozen, patterns, tmp_path):
    model, x = adapted("timm", **patterns), torch.randn(2, 3, 32, 32)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    other = adapted("timm", alpha=1.5, max_rank=6, **patterns)
    if patterns and not include_frozen:
        with pytest.raises(ValueError, match=r"saved with another scaling of .* adapt the model with the same `rank`"):
            load_adapters(other, tmp_path)
        return
    load_adapters(other, tmp_path)
    torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-5)
