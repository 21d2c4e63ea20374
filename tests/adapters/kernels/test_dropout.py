"""Which entries are dropped on a CPU, by the compiled kernels and by torch."""

import pytest
import torch

from asym_lightning.adapters.kernels import dropout
from asym_lightning.adapters.kernels.cpu.library import c_library
from asym_lightning.adapters.kernels.dropout import drop_, drop_then_project, dropped_copy, project_back_then_drop

SEED = torch.tensor(2**61 + 5)
needs_compiler = pytest.mark.skipif(c_library() is None, reason="no C compiler")


@pytest.fixture(autouse=True, params=[pytest.param("C", marks=needs_compiler), "torch"])
def drawn_by(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(dropout, "_kernels", lambda device: None)
    return request.param


def dropped(*shape, p, seed=SEED):
    x = torch.ones(*shape)
    drop_(x, seed, p)
    return (x == 0).double()


# One long row, and rows in several blocks of which the last is cut short.
@pytest.mark.parametrize("shape", [(400_000,), (1001, 400)])
@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 0.95])
def test_entries_are_dropped_independently_with_probability_p(shape, p):
    drops = dropped(*shape, p=p).flatten()
    n = len(drops)
    assert abs(drops.mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    centred = drops - p
    # Neighbours, the entry below, and the same place in the next block.
    for lag in (1, 2, 17, 400, 65536 // 400 * 400):
        assert abs((centred[lag:] * centred[:-lag]).mean()) < 5 * p * (1 - p) / (n - lag) ** 0.5 + 1 / n


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_the_first_entries_are_as_likely_as_any(p):
    first = torch.stack([dropped(3, p=p, seed=torch.tensor(seed)) for seed in range(3000)]).mean(0)
    assert (first - p).abs().max() < 5 * (p * (1 - p) / 3000) ** 0.5


@pytest.mark.parametrize(("p", "lengths"), [(0.1, (0, 1, 5, 20)), (0.002, (0, 100, 511, 512, 513, 1024))])
def test_gaps_are_geometric_in_length(p, lengths):
    """With the small p also where several draws make one gap."""
    gaps = dropped(3_000_000, p=p).nonzero().squeeze(1).diff() - 1
    for k in lengths:
        expected = p * (1 - p) ** k
        assert abs((gaps == k).double().mean() - expected) < 5 * (expected / len(gaps)) ** 0.5
    beyond = (1 - p) ** 600
    assert abs((gaps >= 600).double().mean() - beyond) <= 5 * (beyond / len(gaps)) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype_loses_the_same_entries(dtype):
    x = torch.ones(70, 1000, dtype=dtype)
    drop_(x, SEED, 0.3)
    assert torch.equal((x == 0).double(), dropped(70, 1000, p=0.3))


@pytest.mark.parametrize("rank", [1, 3, 8, 40, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_drop_the_entries_that_drop_does(rank, dtype):
    x, A = torch.randn(300, 500, dtype=dtype), torch.randn(rank, 500, dtype=dtype)
    kept = 1 - dropped(300, 500, p=0.3).to(dtype)
    h = drop_then_project(x, A, SEED, 0.3)
    torch.testing.assert_close(h, (kept * x) @ A.T, rtol=1e-5, atol=1e-4)
    back = kept.double() * (h.double() @ A.double())
    atol = 1e-6 * back.abs().max().item()  # in any order of summing, also where large terms cancel
    torch.testing.assert_close(project_back_then_drop(h, A, SEED, 0.3).double(), back, rtol=1e-6, atol=atol)
    assert torch.equal(dropped_copy(x, SEED, 0.3), kept * x)
    strided = x.T.contiguous().T
    torch.testing.assert_close(drop_then_project(strided, A, SEED, 0.3), h, rtol=1e-5, atol=1e-4)


def test_what_is_dropped_does_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        masks = []
        for count in (1, 3):
            torch.set_num_threads(count)
            masks.append(dropped(1000, 300, p=0.2))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*masks)


def test_nothing_of_nothing_is_dropped():
    assert drop_then_project(torch.empty(0, 5), torch.ones(2, 5), SEED, 0.5).shape == (0, 2)
