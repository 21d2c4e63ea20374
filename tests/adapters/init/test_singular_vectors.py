"""Singular vectors: the true subspaces, of the weight of the slice that they are for."""

import pytest
import torch

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.init.singular_vectors import singular_vectors
from tests.adapters.models import tiny_vit


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


def test_svd_inits_read_the_weight_of_their_own_slice():
    model = tiny_vit()
    inject_adapters(model, AdapterConfig("hB_U_A_V", rank=3, targets=["k"]))
    W = model.blocks[0].attn.qkv.weight.detach().double()
    U, _, Vh = torch.linalg.svd(W.chunk(3)[1])
    adapter = model.blocks[0].attn.qkv.adapters["k"]
    assert (adapter.A.double() @ Vh[:3].T).square().sum() / 3 >= 0.999
    assert (adapter.B.T.double() @ U[:, :3]).square().sum() / 3 >= 0.999
