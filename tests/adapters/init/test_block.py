"""Sums of blocks: every input in one row, and the sums that MiSS makes."""

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters


@pytest.mark.parametrize(("d_in", "rank"), [(12, 4), (13, 4), (7, 7), (9, 1)])
def test_rows_are_sums_of_every_rankth_input_over_the_root_of_their_number(d_in, rank):
    model = nn.Sequential(nn.Linear(d_in, 10))
    inject_adapters(model, AdapterConfig("hB_zero_A_block", rank=rank, targets=["0"]))
    A = model[0].adapters["all"].A
    x = torch.randn(5, d_in)
    padded = nn.functional.pad(x, (0, -d_in % rank))
    sums = padded.view(5, -1, rank).sum(1)  # as MiSS writes it
    sizes = torch.tensor([len(range(i, d_in, rank)) for i in range(rank)])
    torch.testing.assert_close(x @ A.T, sums / sizes.sqrt())
