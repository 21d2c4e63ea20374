"""Data-parallel training on two CPU processes: what it exchanges, and that it comes to what one process comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import seed_everything

from asym_lightning.adapters import trainable_parameters
from asym_lightning.core.ddp import leave_frozen_out_of_ddp
from benchmarks.gradient_bytes import Traffic
from tests.strategies.digits_run import ARMS, NUM_STEPS, classifier, fit
from tests.two_processes import in_two_processes


def trained_bytes(module) -> int:
    return sum(p.nbytes for _, p in trainable_parameters(module))


def train_each_arm(folder: Path) -> dict:
    """In both processes: weights and traffic of each arm, and what happens with unequal adapters."""
    results = {}
    for arm in ARMS:
        module, traffic = classifier(arm), Traffic()
        fit(folder, module, traffic)
        results[arm] = {
            "weights": module.state_dict(),
            "trained": trained_bytes(module),
            "gradients": traffic.gradients / NUM_STEPS,
            "at_start": traffic.at_start,
            "later": traffic.later,
        }
    with pytest.raises(RuntimeError) as unequal:
        fit(folder, classifier("b_only", seed=dist.get_rank()))
    results["unequal adapters"] = str(unequal.value)
    module = classifier("b_only")
    module.configure_model()
    if dist.get_rank() == 1:
        module.backbone.blocks[0].mlp.fc1.weight.data[3, 4] += 1e-6
    with pytest.raises(RuntimeError) as unequal:
        fit(folder, module)
    results["unequal backbones"] = str(unequal.value)
    module = classifier("b_only")
    module.configure_model()
    module.backbone.blocks[1].register_buffer("offset", torch.full((3,), float(dist.get_rank())))
    leave_frozen_out_of_ddp(module, module.backbone)
    with pytest.raises(RuntimeError) as unequal:
        fit(folder, module)
    results["unequal buffers"] = str(unequal.value)
    return results


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    return [outcome.value for outcome in in_two_processes(train_each_arm, tmp_path_factory.mktemp("arms"))]


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_come_to_the_weights_of_one_on_the_same_global_batch(arm, arms, tmp_path):
    module = classifier(arm)
    fit(tmp_path, module)
    start = classifier(arm)
    seed_everything(0, verbose=False)
    start.configure_model()
    assert any(not torch.equal(value, module.state_dict()[name]) for name, value in start.state_dict().items())
    for name, value in module.state_dict().items():
        for process in (0, 1):
            torch.testing.assert_close(arms[process][arm]["weights"][name], value, rtol=0, atol=1e-6)
        assert torch.equal(arms[0][arm]["weights"][name], arms[1][arm]["weights"][name]), name


@pytest.mark.parametrize("arm", ARMS)
def test_only_what_trains_is_exchanged(arm, arms):
    found = arms[0][arm]
    assert found["gradients"] == found["trained"]
    assert found["at_start"] == found["trained"]
    assert found["later"] == 0


def test_b_only_sends_half_of_what_lora_sends_beside_the_head(arms):
    head = 10 * 97 * 4
    assert 2 * (arms[0]["b_only"]["gradients"] - head) == arms[0]["lora"]["gradients"] - head


def test_processes_that_differ_in_what_is_frozen_all_say_so_in_the_same_words(arms):
    for case, message in (
        ("unequal adapters", "The adapters of processes 0 and 1 differ, in factor A of `backbone.blocks.0.attn.qkv.q`"),
        (
            "unequal backbones",
            "The frozen backbones of processes 0 and 1 differ, in `backbone.blocks.0.mlp.fc1.weight`;",
        ),
        ("unequal buffers", "The frozen backbones of processes 0 and 1 differ, in `backbone.blocks.1.offset`;"),
    ):
        assert arms[0][case] == arms[1][case]
        assert arms[0][case].startswith(message)
