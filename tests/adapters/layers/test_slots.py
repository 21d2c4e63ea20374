"""Tasks in slots: rows of one seeded matrix, so that updates of different tasks have orthogonal row spaces."""

import pytest
import torch
from torch import nn

from asym_lightning.adapters import (
    AdapterConfig,
    adapters_by_name,
    inject_adapters,
    load_adapters,
    merge_adapters,
)
from asym_lightning.adapters.arithmetic import concatenation, weighted_sum
from tests.adapters.arithmetic.adapters import plain, written
from tests.adapters.models import perturb


def A_of(slot, **options):
    model = nn.Sequential(nn.Linear(12, 10))
    inject_adapters(model, AdapterConfig(**{"rank": 3, "targets": ["0"], "slot": slot, "heads": [], **options}))
    return adapters_by_name(model)["0.all"].A.detach()


@pytest.mark.parametrize("scheme", ["hB_zero_A_rand", "hB_zero_A_coordinate"])
def test_slots_are_rows_of_one_matrix(scheme):
    whole = A_of(0, rank=10, scheme=scheme)
    slots = torch.cat([A_of(slot, scheme=scheme) for slot in range(4)])
    torch.testing.assert_close(slots[:10], whole)
    torch.testing.assert_close(slots @ slots.T, torch.eye(12), atol=1e-6, rtol=0)


def test_a_slot_is_as_large_as_the_allocation():
    torch.testing.assert_close(A_of(1, rank=2, max_rank=4), A_of(0, rank=6)[4:6])


def test_updates_of_merged_tasks_have_orthogonal_row_spaces():
    model = plain()
    before = model[0].weight.detach().clone()
    updates = []
    for slot in range(3):
        inject_adapters(model, AdapterConfig(rank=3, targets=["0"], slot=slot, heads=[]))
        perturb(model)
        updates.append(model[0].delta_weight().detach())
        merge_adapters(model, keep_weights=False)
    for i, first in enumerate(updates):
        for second in updates[:i]:
            assert (first @ second.T).abs().max() < 1e-4
    torch.testing.assert_close(model[0].weight, before + sum(updates), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compact", [False, True])
def test_files_give_the_slot_back(compact, tmp_path):
    adapter = written(tmp_path, 0, compact=compact, model=plain(), targets=["0"], heads=[], slot=2)
    assert adapter.config["slot"] == 2
    model, other = plain(), plain()
    load_adapters(model, tmp_path / "0")
    inject_adapters(other, AdapterConfig(rank=3, targets=["0"], slot=2, heads=[]))
    assert torch.equal(adapters_by_name(model)["0.all"].A, adapters_by_name(other)["0.all"].A)


def test_tasks_in_slots_are_joined_exactly(tmp_path):
    adapters = [written(tmp_path, n, model=plain(), targets=["0"], heads=[], slot=n) for n in range(2)]
    with pytest.raises(ValueError, match="`slot` is 0 and 1"):
        weighted_sum(adapters)
    assert concatenation(adapters).peft_config["r"] == 6


def test_what_has_no_room_is_refused():
    with pytest.raises(
        ValueError, match=r"`slot` is 4, but `0` \(all\) has 12 inputs and room for slots 0 to 3 of rank 3"
    ):
        A_of(4)
    with pytest.raises(ValueError, match="`slot` is 1, but init 'V' of A has no seeded matrix of more rows"):
        AdapterConfig("hB_zero_A_V", slot=1)
    with pytest.raises(ValueError, match="`slot` must be at least 0"):
        AdapterConfig(slot=-1)
