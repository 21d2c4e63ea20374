"""Whether there are kernels: switched off, not to be built, and what is said of them."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.kernels import dropout
from asym_lightning.adapters.kernels.cpu import library
from asym_lightning.adapters.kernels.cpu.library import c_library, cpu_kernels_in_use

needs_compiler = pytest.mark.skipif(c_library() is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def in_a_new_process(monkeypatch, tmp_path):
    """As if nothing had been asked yet and nothing built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = (c_library, dropout._kernels)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def train():
    """A step of a layer with dropout, and the gradient that it gives."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32))
    inject_adapters(model, AdapterConfig("hB_rand_A_rand", rank=4, dropout=0.5, targets=["0"]))
    F.mse_loss(model.train()(torch.randn(40, 64)), torch.zeros(40, 32)).backward()
    return model[0].adapters["all"].B.grad


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("false", "`false` failed: it ended with status 1"),
        ("no-such-compiler", "`$CC` names `no-such-compiler`, which is no program here"),
        ("sh -c 'echo kernels.c: error: bad luck >&2; exit 1'", "kernels.c: error: bad luck"),
    ],
)
def test_without_a_compiler_that_works_there_is_one_warning_and_torch_trains(monkeypatch, compiler, reason):
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(UserWarning, match="drops other entries for the same seed") as caught:
        assert train().norm() > 0
        assert train().norm() > 0
    assert [reason in str(warning.message) for warning in caught] == [True]
    assert cpu_kernels_in_use() == dropout.implementation(torch.device("cpu")) == "torch"


def test_without_any_compiler_the_warning_names_those_that_would_do(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.warns(UserWarning, match=r"there is no C compiler \(`cc`, `gcc`, `clang` or `\$CC`\)"):
        assert c_library() is None


@needs_compiler
def test_a_cache_folder_that_cannot_be_written_to_is_one_warning(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=str(tmp_path / "file")) as caught:
        assert train().norm() > 0
        assert train().norm() > 0
    assert len(caught) == 1
    assert cpu_kernels_in_use() == "torch"


def test_switched_off_nothing_is_built_and_nothing_said(monkeypatch, tmp_path):
    monkeypatch.setenv("ASYM_LIGHTNING_KERNELS", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train().norm() > 0
    assert c_library() is None
    assert not list(tmp_path.iterdir())
    assert cpu_kernels_in_use() == "torch"


def test_the_switch_is_0_or_1(monkeypatch):
    monkeypatch.setenv("ASYM_LIGHTNING_KERNELS", "off")
    with pytest.raises(ValueError, match=r"`ASYM_LIGHTNING_KERNELS` must be 0 \(no compiled kernels\) or 1, got 'off'"):
        c_library()


@needs_compiler
def test_the_kernels_name_what_compiled_them():
    assert cpu_kernels_in_use() is None
    train()
    name = cpu_kernels_in_use()
    assert name.startswith("C (") and any(character.isdigit() for character in name)
    assert dropout.implementation(torch.device("cpu")) == "C"


@needs_compiler
def test_the_same_seed_drops_other_entries_without_kernels(monkeypatch):
    """Which is why it is warned of."""
    with_kernels = train()
    monkeypatch.setattr(library, "kernels_are_wanted", lambda: False)
    c_library.cache_clear()
    dropout._kernels.cache_clear()
    assert not torch.allclose(train(), with_kernels)
