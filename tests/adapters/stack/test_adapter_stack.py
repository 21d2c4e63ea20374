import copy
import re

import peft
import pytest
import timm
import torch
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    AdapterStack,
    adapter_layers,
    adapters_by_name,
    adapters_disabled,
    inject_adapters,
    load_adapters,
    merge_adapters,
    save_adapters,
)
from tests.adapters.arithmetic.adapters import plain, written
from tests.adapters.models import hf_inputs, hf_model, tiny_vit

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ROWS = ["b", None, "a", "b"]


def alone(directory, x=X, model=None):
    """What a model gives with one adapter, loaded as usual."""
    model = tiny_vit() if model is None else model
    load_adapters(model, directory)
    with torch.no_grad():
        return model(x)


def expected(folder, rows, x=X, make=tiny_vit):
    with torch.no_grad():
        of_none = make()(x)
    given = {name: alone(folder / str(number), x, make()) for number, name in enumerate("ab")} | {None: of_none}
    return torch.stack([given[name][i] for i, name in enumerate(rows)])


OPTIONS = [
    {},
    {"share_a": True, "targets": ["q", "k", "v"]},
    {"targets": "all-linear"},
    {"scheme": "hB_zero_A_coordinate"},
    {"path": "packed"},
    {"path": "plain", "dropout": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("compact", [False, True], ids=["full", "compact"])
def test_each_row_has_its_adapter_and_its_head(options, compact, tmp_path):
    for number in range(2):
        written(tmp_path, number, compact=compact, **options)
    model = tiny_vit()
    stack = AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})
    with torch.no_grad(), stack.rows_use(ROWS):
        found = model(X)
    torch.testing.assert_close(found, expected(tmp_path, ROWS), rtol=1e-5, atol=1e-5)


@pytest.fixture
def two(tmp_path):
    for number in range(2):
        written(tmp_path, number)
    model = tiny_vit()
    return model, AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})


@pytest.mark.parametrize("rows", [["a"] * 4, [None] * 4, ["b"] * 4])
def test_all_rows_may_have_one(rows, two, tmp_path):
    model, stack = two
    with torch.no_grad(), stack.rows_use(rows):
        found = model(X)
    torch.testing.assert_close(found, expected(tmp_path, rows), rtol=1e-5, atol=1e-5)


def test_with_gradients_it_computes_the_same(two):
    model, stack = two
    x = X.clone().requires_grad_()
    with stack.rows_use(ROWS):
        found = model(x)
        with torch.no_grad():
            torch.testing.assert_close(found, model(X), rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert x.grad.abs().sum() > 0


def test_under_autocast(two, tmp_path):
    model, stack = two
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), stack.rows_use(ROWS):
        found = model(X)
    assert found.dtype is torch.bfloat16
    full = expected(tmp_path, ROWS)
    assert (found.float() - full).norm() < 0.03 * full.norm()


def test_in_bfloat16(two, tmp_path):
    model, stack = two
    model.bfloat16()
    model.head.bfloat16()
    with torch.no_grad(), stack.rows_use(ROWS):
        found = model(X.bfloat16())
    full = expected(tmp_path, ROWS)
    assert (found.float() - full).norm() < 0.05 * full.norm()


def test_adapters_come_and_go_while_it_runs(two, tmp_path):
    model, stack = two
    written(tmp_path, 2)
    stack.load("c", tmp_path / "2")
    assert stack.names == ["a", "b", "c"]
    with torch.no_grad(), stack.rows_use(["c", "b", "a", "c"]):
        found = model(X)
    of_c, of_b = alone(tmp_path / "2"), alone(tmp_path / "1")
    torch.testing.assert_close(found[[0, 1, 3]], torch.stack([of_c[0], of_b[1], of_c[3]]), rtol=1e-5, atol=1e-5)
    stack.drop("b")
    stack.load("d", tmp_path / "1")
    stack.load("a", tmp_path / "2")
    with torch.no_grad(), stack.rows_use(["d", "a", "d", "c"]):
        found = model(X)
    torch.testing.assert_close(found, torch.stack([of_b[0], of_c[1], of_b[2], of_c[3]]), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="no adapter `b`"), stack.rows_use(["b"]):
        pass


def test_outside_the_context_the_model_is_as_it_was(two):
    model, stack = two
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(X)
    with stack.rows_use(ROWS):
        model(X)
    assert torch.equal(model(X), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with adapters_disabled(model):
        assert torch.equal(model(X), before)  # of the model itself B is zero


def test_the_models_own_adapter_stays_beside_the_stack(tmp_path):
    for number in range(2):
        written(tmp_path, number)
    model = tiny_vit()
    load_adapters(model, tmp_path / "0")
    before = model(X)
    stack = AdapterStack(model, {"b": tmp_path / "1"})
    with torch.no_grad(), stack.rows_use(["b"] * 4):
        torch.testing.assert_close(model(X), alone(tmp_path / "1"), rtol=1e-5, atol=1e-5)
    assert torch.equal(model(X), before)


def test_saves_each_as_a_directory_that_peft_loads(tmp_path):
    x = torch.randn(3, 12)
    for number in range(2):
        written(tmp_path, number, model=plain(), targets=["0"], heads=["2"])
    model = plain()
    stack = AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stack.save("b", tmp_path / "saved")
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    of_peft = peft.PeftModel.from_pretrained(plain(), tmp_path / "saved")
    torch.testing.assert_close(of_peft(x), alone(tmp_path / "1", x, plain()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "t5"])
def test_generates_for_each_row_with_its_adapter(name, tmp_path):
    """Beams repeat the rows; interleaved slices, Conv1D and an encoder have their layers each."""
    for number in range(2):
        written(tmp_path, number, model=hf_model(name), targets=["q", "v"], heads=[])
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False, "output_scores": False}
    inputs = {k: v.repeat(2, 1) for k, v in hf_inputs(name).items() if k == "input_ids"}
    rows = ["a", "b", None, "a"]
    model = hf_model(name)
    stack = AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})
    with stack.rows_use(rows):
        found = model.generate(**inputs, **options)
        logits = model(**inputs, **({"decoder_input_ids": inputs["input_ids"]} if name == "t5" else {})).logits
    for i, row in enumerate(rows):
        one = hf_model(name)
        if row is not None:
            load_adapters(one, tmp_path / {"a": "0", "b": "1"}[row])
        own = {k: v[i : i + 1] for k, v in inputs.items()}
        text = one.generate(**own, **options)[0]
        assert torch.equal(found[i][: len(text)], text)
        decoder = {"decoder_input_ids": own["input_ids"]} if name == "t5" else {}
        torch.testing.assert_close(logits[i], one(**own, **decoder).logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_heads_of_several_layers(name, tmp_path):
    for number in range(2):
        written(tmp_path, number, model=hf_model(name), targets=["q", "v"])
    model = hf_model(name)
    stack = AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})
    inputs = hf_inputs(name)
    with torch.no_grad(), stack.rows_use(["b", "a"]):
        found = model(**inputs).logits
    for i, number in enumerate((1, 0)):
        one = hf_model(name)
        load_adapters(one, tmp_path / str(number))
        with torch.no_grad():
            torch.testing.assert_close(found[i], one(**inputs).logits[i], rtol=1e-5, atol=1e-5)


def test_windows_of_images_count_for_the_row_of_their_image(tmp_path):
    def swin():
        sizes = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": (2,), "num_heads": (2,)}
        torch.manual_seed(0)
        return timm.models.SwinTransformer(**sizes, num_classes=5).eval()

    for number in range(2):
        written(tmp_path, number, model=swin(), targets="all-linear")
    model = swin()
    stack = AdapterStack(model, {"a": tmp_path / "0", "b": tmp_path / "1"})
    with torch.no_grad(), stack.rows_use(ROWS):
        found = model(X)
    torch.testing.assert_close(found, expected(tmp_path, ROWS, make=swin), rtol=1e-4, atol=1e-4)


def test_what_differs_is_refused_and_nothing_changes(two, tmp_path):
    model, stack = two
    written(tmp_path, 7, seed=1)
    written(tmp_path, 8, rank=2)
    written(tmp_path, 9, targets=["q", "v", "k", "mlp"])
    other = tiny_vit()
    other.reset_classifier(4)
    written(tmp_path, 10, model=other)
    for number, reason in (
        (7, r"another A of `blocks\.0\.attn\.qkv` \(q\)"),
        (8, r"another A of `blocks\.0\.attn\.qkv` \(q\)"),
        (9, "mixes the slices|does not fit|other"),
        (10, r"holds `head\.bias` \(4,\), the model has \(5,\)"),
    ):
        with pytest.raises(ValueError, match=reason):
            stack.load("c", tmp_path / str(number))
    assert stack.names == ["a", "b"]
    with torch.no_grad(), stack.rows_use(ROWS):
        torch.testing.assert_close(model(X), expected(tmp_path, ROWS), rtol=1e-5, atol=1e-5)


def test_another_backbone_is_refused(two, tmp_path):
    other = tiny_vit()
    with torch.no_grad():
        other.blocks[0].attn.qkv.weight.mul_(1.1)
    written(tmp_path, 5, model=other)
    with pytest.raises(ValueError, match=r"was trained over another backbone: the weight of `blocks\.0\.attn\.qkv`"):
        two[1].load("c", tmp_path / "5")


def test_an_unknown_name_names_those_there_are(two):
    with pytest.raises(ValueError, match=re.escape("no adapter `x`; there are a, b.")), two[1].rows_use(["a", "x"]):
        pass
    with pytest.raises(ValueError, match="no adapter `x`"):
        two[1].drop("x")


def test_trained_rows_of_tokens_are_refused(tmp_path):
    model = hf_model("llama")
    config = AdapterConfig(rank=2, targets=["q"], token_rows={"embed_tokens": [1]})
    inject_adapters(model, config)
    save_adapters(model, tmp_path / "adapter")
    fresh = hf_model("llama")
    with pytest.raises(ValueError, match=r"trains rows of `model\.embed_tokens`, which rows of a batch"):
        AdapterStack(fresh, {"a": tmp_path / "adapter"})
    assert not adapter_layers(fresh)


def test_another_number_of_rows_is_refused(two):
    model, stack = two
    reason = r"`blocks\.0\.attn\.qkv` was called with 4 rows, but 3 are named"
    with pytest.raises(ValueError, match=reason), stack.rows_use(["a", "b", "a"]):
        model(X)
    with pytest.raises(ValueError, match="for each row"), stack.rows_use([]):
        pass
    model(X)


def test_what_is_in_use_stays(two, tmp_path):
    _, stack = two
    with stack.rows_use(ROWS):
        with pytest.raises(RuntimeError, match="Rows use `a`"):
            stack.drop("a")
        with pytest.raises(RuntimeError, match="Rows use `a`"):
            stack.load("a", tmp_path / "1")
        with pytest.raises(RuntimeError, match="already"), stack.rows_use(["a"]):
            pass
    stack.drop("a")


def test_layers_where_rows_can_not_differ_are_named(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    save = copy.deepcopy(model)
    inject_adapters(save, AdapterConfig(rank=2, targets=["0"], heads=[]))
    save_adapters(save, tmp_path)
    with pytest.raises(ValueError, match=re.escape("of their own in `0` (AdaptedConv2d): adapt linear layers alone")):
        AdapterStack(model, {"a": tmp_path})
    assert not adapter_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_merged_adapters_are_refused(two):
    model, _ = two
    with adapters_disabled(model), pytest.raises(RuntimeError, match="merged, disabled"), two[1].rows_use(ROWS):
        pass
    merge_adapters(model)
    with pytest.raises(RuntimeError, match="merged, disabled"), two[1].rows_use(ROWS):
        pass
    with pytest.raises(RuntimeError, match="are merged into the weights"):
        AdapterStack(model)


def test_a_failed_first_load_leaves_no_adapter(tmp_path):
    written(tmp_path, 0, model=tiny_vit(depth=3))
    model = tiny_vit()
    with pytest.raises(ValueError):
        AdapterStack(model, {"a": tmp_path / "0"})
    assert not adapters_by_name(model)
