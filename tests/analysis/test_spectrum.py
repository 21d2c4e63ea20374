"""Exact spectra against a dense SVD."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapter_layers, inject_adapters
from asym_lightning.adapters.rank.change import shrink_rank
from asym_lightning.adapters.rank.groups import rank_groups
from asym_lightning.analysis import update_spectrum
from asym_lightning.analysis.spectrum import orthonormal_A, update_changes


def adapted(*shapes: tuple[int, int], scheme: str, dtype=torch.float32, **options) -> nn.Module:
    torch.manual_seed(0)
    model = nn.ModuleDict({f"layer{i}": nn.Linear(*shape) for i, shape in enumerate(shapes)}).to(dtype)
    inject_adapters(model, AdapterConfig(scheme=scheme, targets=["layer*"], **options))
    return model


def assert_exact(model: nn.Module) -> None:
    spectra = update_spectrum(model)
    for name, layer in adapter_layers(model).items():
        spectrum, adapter = spectra[f"{name}.all"], layer.adapters["all"]
        dense = torch.linalg.svdvals(layer.delta_weight().detach().double())
        size = dense.max().item()
        torch.testing.assert_close(spectrum.update, dense[: adapter.rank], atol=1e-5 * size, rtol=0)
        torch.testing.assert_close(
            spectrum.B, torch.linalg.svdvals(adapter.B.detach().double()), atol=1e-5 * size, rtol=0
        )
        assert spectrum.frobenius_norm == pytest.approx(dense.norm().item(), rel=1e-5)
        assert spectrum.spectral_norm == pytest.approx(size, rel=1e-5)
        assert spectrum.stable_rank == pytest.approx((dense.norm() ** 2 / size**2).item(), rel=1e-5)
        shares = dense / dense.sum()
        entropy = -sum(p * math.log(p) for p in shares.tolist() if p > 0)
        assert spectrum.effective_rank == pytest.approx(math.exp(entropy), rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    scheme=st.sampled_from(["hB_he_A_rand", "hB_he_A_V", "hB_he_hA_he", "hA_he_B_rand", "hA_he_B_he"]),
    shapes=st.lists(st.sampled_from([(8, 8), (5, 9), (12, 3)]), min_size=1, max_size=4),
    rank=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_every_figure_equals_a_dense_svd_of_the_update(scheme, shapes, rank, dtype):
    assert_exact(adapted(*shapes, scheme=scheme, rank=rank, dtype=dtype))


def test_figures_stay_exact_after_a_rotation():
    model = adapted((9, 9), (9, 9), scheme="hB_he_A_rand", rank=4)
    for group in rank_groups(model).values():
        shrink_rank(group, 3)
    assert_exact(model)


def test_small_singular_values_are_not_lost_to_squaring():
    model = adapted((40, 40), scheme="hB_he_A_rand", rank=3)
    adapter = model["layer0"].adapters["all"]
    with torch.no_grad():
        adapter.factor_B.copy_(torch.linalg.qr(torch.randn(40, 3)).Q * torch.tensor([1.0, 1e-3, 1e-5]))
    spectrum = update_spectrum(model)["layer0.all"]
    torch.testing.assert_close(spectrum.B, torch.tensor([1.0, 1e-3, 1e-5], dtype=torch.float64), rtol=1e-2, atol=1e-7)


def test_an_update_of_zero_has_no_rank():
    spectrum = update_spectrum(adapted((8, 8), scheme="hB_zero_A_rand", rank=2))["layer0.all"]
    assert spectrum.frobenius_norm == spectrum.stable_rank == spectrum.effective_rank == 0


def test_orthonormal_A_are_recognised_by_their_numbers_not_by_their_scheme():
    model = adapted((8, 8), (8, 8), scheme="hB_he_A_rand", rank=2)
    with torch.no_grad():
        model["layer1"].adapters["all"].factor_A.mul_(2)
    adapters = {name: layer.adapters["all"] for name, layer in adapter_layers(model).items()}
    assert orthonormal_A(adapters) == {"layer0"}
    assert_exact(model)


def test_a_model_without_adapters_has_no_spectra():
    assert update_spectrum(nn.Linear(2, 2)) == {}


def test_changes_are_those_of_the_dense_update_whatever_the_ranks_and_coordinates():
    model = adapted((9, 7), (9, 7), scheme="hB_he_A_rand", rank=4)
    adapters = {name: layer.adapters["all"] for name, layer in adapter_layers(model).items()}
    before = {name: (a.A.detach().clone(), a.B.detach().clone()) for name, a in adapters.items()}
    dense = {name: a.delta_weight().detach().clone() for name, a in adapters.items()}
    groups = rank_groups(model)
    shrink_rank(groups["layer0.all"], 2)
    shrink_rank(groups["layer1.all"], 4)
    changes = update_changes(adapters, before)
    expected = (adapters["layer0"].delta_weight() - dense["layer0"]).norm().double()
    torch.testing.assert_close(changes["layer0"], expected, rtol=1e-5, atol=1e-6)
    assert changes["layer1"] < 1e-5
