"""Inits: orthonormal draws, true singular subspaces, and draws that depend on seed and name alone."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, LowRankAdapter, Scheme, adapters_by_name, inject_adapters
from asym_lightning.adapters.init.random import layer_generator, orthonormal_rows
from asym_lightning.adapters.init.singular_vectors import singular_vectors
from asym_lightning.adapters.scheme import A_INITS, B_INITS


@pytest.mark.parametrize(("rank", "dim"), [(1, 1), (3, 3), (8, 768), (5, 17), (64, 4096)])
def test_random_A_is_orthonormal_to_1e_6_in_float32(rank, dim):
    A = orthonormal_rows(rank, dim, layer_generator(0, "a")).float()
    assert (A @ A.T - torch.eye(rank)).abs().max() < 1e-6


@pytest.mark.parametrize("dim", [13, 16, 100])
def test_first_rows_do_not_depend_on_the_number_of_rows(dim):
    small, large = (orthonormal_rows(r, dim, layer_generator(7, "a")) for r in (3, 11))
    torch.testing.assert_close(small, large[:3])


def test_draws_are_uniform_over_the_sphere():
    """Haar: every coordinate of a row has mean 0 and variance 1/dim, whatever the sign convention of the QR."""
    rows = torch.stack([orthonormal_rows(2, 6, layer_generator(seed, "a")) for seed in range(2000)])
    assert rows.mean(0).abs().max() < 5 * (1 / 6 / 2000) ** 0.5
    assert (rows.square().mean(0) - 1 / 6).abs().max() < 0.03


def test_new_rows_are_orthonormal_to_those_beside():
    old = orthonormal_rows(3, 10, layer_generator(0, "a"))
    new = orthonormal_rows(4, 10, layer_generator(0, "b"), beside=old)
    both = torch.cat([old, new])
    torch.testing.assert_close(both @ both.T, torch.eye(7, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (32, 32), (200, 300)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("side", ["U", "V"])
def test_singular_vectors_span_the_true_subspace(shape, side, last):
    W, rank = torch.randn(*shape, generator=torch.Generator().manual_seed(0)), 4
    W[:, :5] *= 5  # a few large singular values, as pretrained weights have them
    found = singular_vectors(W, rank, side=side, last=last)
    U, _, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    true = U.T if side == "U" else Vh
    true = true[-rank:] if last else true[:rank]
    overlap = (found @ true.T).square().sum() / rank
    assert overlap >= 0.999


def test_singular_vectors_of_a_rank_deficient_weight_are_orthonormal():
    W = torch.randn(20, 2) @ torch.randn(2, 30)
    found = singular_vectors(W, 5, side="V", last=False)
    torch.testing.assert_close(found @ found.T, torch.eye(5, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("A_init", A_INITS)
@pytest.mark.parametrize("B_init", B_INITS)
def test_norms_of_every_init(A_init, B_init):
    scheme = Scheme.parse(f"hB_{B_init}_hA_{A_init}") if "zero" not in (A_init, B_init) or A_init != B_init else None
    if scheme is None:
        return
    d_out, d_in, r = 300, 200, 8
    adapter = LowRankAdapter(d_out, d_in, rank=r, max_rank=r, scaling=1.0, scheme=scheme, key="a")
    adapter.reset_parameters(torch.randn(d_out, d_in))
    row_norm = {"zero": 0, "he": 3**-0.5}.get(A_init, 1)
    column_norm = {"zero": 0, "he": (d_out / (3 * r)) ** 0.5}.get(B_init, 1)
    assert adapter.A.norm(dim=1).mean().item() == pytest.approx(row_norm, rel=0.05)
    assert adapter.B.norm(dim=0).mean().item() == pytest.approx(column_norm, rel=0.05)


def test_svd_inits_read_the_weight_of_their_own_slice():
    from tests.adapters.models import tiny_vit

    model = tiny_vit()
    inject_adapters(model, AdapterConfig("hB_U_A_V", rank=3, targets=["k"]))
    W = model.blocks[0].attn.qkv.weight.detach().double()
    U, _, Vh = torch.linalg.svd(W.chunk(3)[1])
    adapter = model.blocks[0].attn.qkv.adapters["k"]
    assert (adapter.A.double() @ Vh[:3].T).square().sum() / 3 >= 0.999
    assert (adapter.B.T.double() @ U[:, :3]).square().sum() / 3 >= 0.999


def test_equal_seeds_give_equal_A_in_another_module_order_and_another_process():
    def build(order):
        model = nn.ModuleDict({name: nn.Linear(12, 12) for name in order})
        inject_adapters(model, AdapterConfig(rank=3, targets=["a", "b"], seed=5, heads=[]))
        return adapters_by_name(model)

    one, other = build("ab"), build("ba")
    for name in one:
        assert torch.equal(one[name].A, other[name].A)
    assert not torch.equal(one["a.all"].A, one["b.all"].A)
    code = (
        "import torch; torch.manual_seed(99); from torch import nn\n"
        "from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters\n"
        "m = nn.ModuleDict({'b': nn.Linear(12, 12), 'a': nn.Linear(12, 12)})\n"
        "inject_adapters(m, AdapterConfig(rank=3, targets=['a', 'b'], seed=5, heads=[]))\n"
        "print(adapters_by_name(m)['a.all'].A.tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(printed) == one["a.all"].A.tolist()


def test_another_seed_gives_another_A_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    models = [nn.Sequential() for _ in range(2)]
    torch.set_rng_state(before)
    first = torch.rand(1)
    torch.set_rng_state(before)
    for seed, model in enumerate(models):
        layer = torch.nn.utils.skip_init(nn.Linear, 9, 9)
        model.append(layer)
        inject_adapters(model, AdapterConfig(rank=2, targets=["0"], seed=seed))
    assert torch.equal(torch.rand(1), first)
    assert not torch.equal(models[0][0].adapters["all"].A, models[1][0].adapters["all"].A)
