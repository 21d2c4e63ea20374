"""Counting bytes of known graphs."""

import gc

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.memory import Budget, saved_bytes, tensor_bytes


def test_a_linear_layer_with_a_trained_weight_keeps_its_input():
    layer, x = nn.Linear(8, 16), torch.randn(4, 8)
    assert saved_bytes(lambda: layer(x).sum(), layer.parameters()) == x.nbytes


def test_a_frozen_linear_layer_keeps_nothing_but_its_weight():
    layer, x = nn.Linear(8, 16).requires_grad_(False), torch.randn(4, 8, requires_grad=True)
    assert saved_bytes(lambda: layer(x).sum(), layer.parameters()) == 0


def test_a_storage_that_two_operators_keep_counts_once_and_in_full():
    x = torch.randn(4, 8, requires_grad=True)
    # Both gelu and silu keep x; the slice keeps the storage that it is a view of.
    assert saved_bytes(lambda: (F.gelu(x) + F.silu(x)).sum(), []) == x.nbytes
    assert saved_bytes(lambda: F.gelu(x[:1]).sum(), []) == x.nbytes


def test_addresses_that_are_given_out_again_are_not_mistaken_for_one_storage():
    x = torch.randn(1024, requires_grad=True)

    def run():
        for _ in range(5):  # each graph is gone before the next one is made
            result = F.gelu(x * 2).sum()
        return result

    assert saved_bytes(run, []) == 5 * x.nbytes


def test_the_graph_is_gone_afterwards():
    x = torch.randn(4, 777, requires_grad=True)
    # exp keeps its own result.
    assert saved_bytes(lambda: x.exp().sum(), []) == x.nbytes
    gc.collect()
    assert [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == x.shape and t is not x] == []


def test_optimizer_state_is_counted_through_its_nesting():
    parameter = nn.Parameter(torch.zeros(10))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(10)
    optimizer.step()
    assert tensor_bytes(dict(optimizer.state)) == 2 * parameter.nbytes + 4  # two moments and the step


def test_a_budget_counts_what_is_promised_against_what_is_free():
    budget = Budget(torch.device("cpu"), limit=1_000_000)
    assert budget.shortage(900_000) is None
    budget.reserve(500_000)
    assert budget.shortage(400_000) is None
    assert budget.shortage(300_000, passing=200_000) == "would need 0.50 MB of memory, 0.40 MB can be used"
