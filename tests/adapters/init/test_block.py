"""Sums of blocks: every input in one row."""

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters


@pytest.mark.parametrize(
    ("d_in", "blocks"),
    [
        (12, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        (13, [[0, 1, 2, 12], [3, 4, 5], [6, 7, 8], [9, 10, 11]]),
        (7, [[i] for i in range(7)]),
        (9, [list(range(9))]),
    ],
)
def test_rows_are_sums_of_blocks_over_the_root_of_their_number(d_in, blocks):
    model = nn.Sequential(nn.Linear(d_in, 10))
    inject_adapters(model, AdapterConfig("hB_zero_A_block", rank=len(blocks), targets=["0"]))
    A = model[0].adapters["all"].A
    x = torch.randn(5, d_in)
    sums = torch.stack([x[:, block].sum(1) / len(block) ** 0.5 for block in blocks], 1)
    torch.testing.assert_close(x @ A.T, sums)
