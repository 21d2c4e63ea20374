"""Nothing that trains, or has changed, is left out of an adapter directory: it is saved, or saving is refused."""

import copy
import warnings

import peft
import pytest
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapters_by_name,
    check_trained_state_dict,
    fill_checkpoint,
    inject_adapters,
    load_adapters,
    remove_adapters,
    save_adapters,
    trained_state_dict,
)
from tests.adapters.models import HF_MODELS

CONFIG = AdapterConfig(rank=2, targets=["linear"], heads=["head"])
X = torch.linspace(-1, 1, 32).view(4, 8)


class Host(nn.Module):
    """A backbone with all that may change beside an adapter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.statistics = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)
        self.token = nn.Parameter(torch.zeros(8))
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, x):
        return self.head(self.statistics(self.norm(self.linear(x) + self.token)))


def adapted() -> Host:
    model = Host()
    inject_adapters(model, CONFIG)
    return model


def trained(model: Host) -> Host:
    """Trained for three steps in a loop of one's own, which leaves batch normalisations in training mode."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().sum().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("include_frozen", [True, False])
@pytest.mark.parametrize("is_adapted", [False, True], ids=["plain", "adapted"])
def test_an_unfrozen_normalisation_and_running_statistics_travel_with_the_adapter(is_adapted, include_frozen, tmp_path):
    model = adapted()
    model.norm.requires_grad_(True)
    trained(model)
    save_adapters(model, tmp_path, include_frozen=include_frozen)
    fresh = adapted() if is_adapted else Host()
    load_adapters(fresh, tmp_path)
    assert torch.equal(fresh.eval()(X), model(X))
    if not is_adapted:
        assert fresh.norm.weight.requires_grad  # as it was


def test_peft_gives_the_same_with_them(tmp_path):
    model = adapted()
    model.norm.requires_grad_(True)
    trained(model)
    save_adapters(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(Host(), tmp_path).eval()
    torch.testing.assert_close(theirs(X), model(X))


def test_what_has_not_changed_is_not_saved(tmp_path):
    model = adapted()
    save_adapters(model, tmp_path)
    names = {name.split(".")[2] for name in load_file(tmp_path / "adapter_model.safetensors")}
    assert names == {"linear", "head"}
    fresh = Host()
    load_adapters(fresh, tmp_path)
    inject_adapters(fresh, CONFIG)  # of the same configuration still


def unfreeze(name):
    return lambda model: model.get_parameter(name).requires_grad_(True)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (unfreeze("token"), "token"),
        (unfreeze("linear.bias"), "linear.bias"),
        (lambda model: model.num_calls.add_(1), "num_calls"),
    ],
)
def test_what_lies_in_no_module_of_its_own_is_refused_by_name(change, name, tmp_path):
    model = adapted()
    change(model)
    with pytest.raises(RuntimeError, match=rf"`{name}` would be lost: .*freeze it, or keep `trained_state_dict"):
        save_adapters(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert name in trained_state_dict(model)


def test_a_model_whose_adapters_were_removed_begins_anew(tmp_path):
    model = trained(adapted())
    remove_adapters(model)
    inject_adapters(model, CONFIG)
    save_adapters(model, tmp_path)
    assert not [name for name in load_file(tmp_path / "adapter_model.safetensors") if "statistics" in name]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["linear.adapters.all.factor_B", "head.weight"])
def test_numbers_that_are_none_are_refused_and_the_old_files_stay(name, value, tmp_path):
    model = adapted()
    save_adapters(model, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model.get_parameter(name).data[0, 0] = value
    with pytest.raises(ValueError, match=r"holds NaN or infinity: the run has diverged"):
        save_adapters(model, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match=rf"`{name}` holds NaN or infinity: the run has diverged, and no checkpoint"):
        fill_checkpoint(model, {"state_dict": model.state_dict()})


def with_mask():
    model = adapted()
    model.head.register_buffer("mask", torch.full((2,), -torch.inf))
    return model


def test_a_mask_may_hold_infinity(tmp_path):
    model = trained(with_mask())
    checkpoint = {"state_dict": model.state_dict()}
    fill_checkpoint(model, checkpoint)
    check_trained_state_dict(model, checkpoint["state_dict"])
    save_adapters(model, tmp_path)
    load_adapters(loaded := with_mask(), tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_head_of_a_file_that_holds_no_numbers_is_refused_and_nothing_is_loaded(value, tmp_path):
    save_adapters(trained(with_mask()), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    tensors["base_model.model.head.weight"][0, 0] = value
    save_file(tensors, path, header)
    model = with_mask()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"holds NaN or infinity in `head\.weight`"):
        load_adapters(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- vocabularies --------------------------------------------------------------------------------------------------


def llama(folder, *, tied: bool = False, num_tokens: int | None = None, seed: int = 0):
    if not folder.exists():
        _, config = HF_MODELS["llama"]
        config = copy.deepcopy(config)
        config.tie_word_embeddings = tied
        torch.manual_seed(0)
        tf.LlamaForCausalLM(config).save_pretrained(folder)
    model = tf.LlamaForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(seed)
    if num_tokens is not None:
        model.resize_token_embeddings(num_tokens)
    return model


TOKENS = {"input_ids": torch.tensor([[3, 61, 5, 62]])}


@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
def test_a_resized_vocabulary_travels_with_the_adapter(tied, tmp_path):
    model = llama(tmp_path / "llama", tied=tied, num_tokens=63)
    inject_adapters(model, AdapterConfig(rank=2))
    for adapter in adapters_by_name(model).values():
        nn.init.normal_(adapter.factor_B.data)
    save_adapters(model, tmp_path / "adapter")
    fresh = llama(tmp_path / "llama", tied=tied, num_tokens=63, seed=1)
    theirs = copy.deepcopy(fresh)
    load_adapters(fresh, tmp_path / "adapter")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(**TOKENS).logits
        assert torch.equal(fresh(**TOKENS).logits, expected)
        read = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
        torch.testing.assert_close(read(**TOKENS).logits, expected)
    with pytest.raises(ValueError, match=r"holds `[a-z_.]+\.weight` \(63, 24\), the model has \(60, 24\)"):
        load_adapters(llama(tmp_path / "llama"), tmp_path / "adapter")


def test_checkpoints_hold_a_resized_vocabulary(tmp_path):
    model = llama(tmp_path / "llama", num_tokens=63)
    inject_adapters(model, AdapterConfig(rank=2))
    assert {"model.embed_tokens.weight", "lm_head.weight"} < set(trained_state_dict(model))
    plain = llama(tmp_path / "llama")
    inject_adapters(plain, AdapterConfig(rank=2))
    assert all(".adapters." in name for name in trained_state_dict(plain))


class HeadUnderTwoNames(nn.Module):
    """A head whose parameters a module of the backbone holds too, as the box predictors of detectors do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.refine, self.linear, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.refine.weight, self.refine.bias = self.head.weight, self.head.bias

    def forward(self, x):
        return self.head(self.linear(x) + self.refine(x))


def test_what_a_head_holds_too_is_trained_with_it_and_not_adapted(tmp_path):
    model = HeadUnderTwoNames()
    inject_adapters(model, AdapterConfig(rank=2, targets="all-linear", heads=["head"]))
    assert list(adapters_by_name(model)) == ["linear.all"]
    with torch.no_grad():
        model.head.weight.mul_(2)
    save_adapters(model, tmp_path)
    read = HeadUnderTwoNames()
    load_adapters(read, tmp_path)
    assert read.refine.weight is read.head.weight
    assert torch.equal(read(X), model(X))
    with pytest.raises(ValueError, match=r"matches only layers that are heads or excluded: refine"):
        inject_adapters(HeadUnderTwoNames(), AdapterConfig(rank=2, targets=["refine"], heads=["head"]))
