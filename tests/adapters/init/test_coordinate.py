"""Unit vectors: each row reads one input, and no two the same."""

import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters


def adapted(rank: int, seed: int = 0) -> nn.Module:
    model = nn.Sequential(nn.Linear(40, 30))
    inject_adapters(model, AdapterConfig("hB_zero_A_coordinate", rank=rank, targets=["0"], seed=seed))
    return model


def test_A_chooses_inputs():
    A = adapted(6)[0].adapters["all"].A
    x = torch.randn(5, 40)
    chosen = A.argmax(dim=1)
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(x @ A.T, x[:, chosen])


def test_another_seed_chooses_others_and_a_larger_rank_more():
    small, large, other = (adapted(*options)[0].adapters["all"].A for options in ((4,), (30,), (4, 1)))
    assert torch.equal(large[:4], small)
    assert not torch.equal(other, small)
