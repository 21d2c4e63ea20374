"""Training both factors, then one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import FreezeA
from asym_lightning.cli import main
from tests.callbacks.foreign import Foreign, injection, loader, trainer

BOTH = {"scheme": "hB_zero_hA_rand"}
NUM_STEPS = 10  # 2 epochs of 5


class Recorder(Callback):
    """Both factors after every step."""

    def __init__(self) -> None:
        self.A, self.B = [], []

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        adapter = pl_module.net.first.adapters["all"]
        self.A.append(adapter.A.detach().clone())
        self.B.append(adapter.B.detach().clone())


def fit(path, *callbacks: Callback, adapter=BOTH, module: nn.Module | None = None, **options):
    run = trainer(path, injection(adapter=adapter), *callbacks, **options)
    run.fit(module or Foreign(), loader(), loader())
    return run


def moves(values: list[torch.Tensor]) -> list[bool]:
    return [not torch.equal(a, b) for a, b in pairwise(values)]


@pytest.mark.parametrize(
    ("when", "frozen_at"),
    [
        ({}, 0),
        ({"after_steps": 3}, 3),
        ({"after_epochs": 1}, 5),
        ({"after_fraction": 0.4}, 4),
    ],
)
def test_A_moves_until_the_freeze_and_not_after(when, frozen_at, tmp_path):
    freeze, recorder = FreezeA(**when), Recorder()
    fit(tmp_path, freeze, recorder)
    assert freeze.frozen_at == frozen_at
    assert moves(recorder.A) == [step < frozen_at for step in range(1, NUM_STEPS)]
    assert all(moves(recorder.B))


def test_a_metric_that_stalls_freezes(tmp_path):
    class Stalling(Foreign):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", [1.0, 2.0, 2.0, 2.0][self.current_epoch])

    freeze, recorder = FreezeA(monitor="val/score", mode="max", patience=2), Recorder()
    fit(tmp_path, freeze, recorder, module=Stalling(), max_epochs=4)
    assert freeze.frozen_at == 20
    freeze = FreezeA(monitor="val/score", mode="max", patience=1)
    fit(tmp_path, freeze, module=Stalling(), max_epochs=4)
    assert freeze.frozen_at == 15


def test_a_metric_that_was_never_logged_is_an_error_that_lists_those_that_were(tmp_path):
    with pytest.raises(RuntimeError, match=r"`monitor` 'val/lss' was never logged; logged are: .*train/loss.*val/loss"):
        fit(tmp_path, FreezeA(monitor="val/lss"))


def test_B_freezes_the_same_way(tmp_path):
    recorder = Recorder()
    fit(tmp_path, FreezeA("B", after_steps=3), recorder)
    assert moves(recorder.B) == [step < 3 for step in range(1, NUM_STEPS)]
    assert all(moves(recorder.A))


def test_the_optimizer_forgets_A_and_keeps_B(tmp_path):
    module = Foreign()
    run = fit(tmp_path, FreezeA(after_steps=3), module=module)
    state = run.optimizers[0].state
    for adapter in adapters_by_name(module.net).values():
        assert adapter.factor_A not in state
        assert state[adapter.factor_B]["step"] == NUM_STEPS


def test_weight_decay_does_not_move_the_frozen_factor(tmp_path):
    class Decaying(Foreign):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=10.0)

    recorder = Recorder()
    fit(tmp_path, FreezeA(after_steps=3), recorder, module=Decaying())
    assert not any(moves(recorder.A[2:]))


def test_orthonormalising_at_the_freeze_leaves_the_function_as_it_was(tmp_path):
    module = Foreign()
    seen = {}

    class Outputs(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        @property
        def state_key(self) -> str:
            return self.name

        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            if trainer.global_step == 3:
                seen[self.name] = pl_module.net.first.delta_weight().detach().clone()

    freeze = FreezeA(after_steps=3, orthonormalize=True)
    fit(tmp_path, Outputs("before"), freeze, Outputs("after"), module=module)
    torch.testing.assert_close(seen["before"], seen["after"], atol=1e-6, rtol=1e-5)
    A = module.net.first.adapters["all"].A.detach()
    torch.testing.assert_close(A @ A.T, torch.eye(2), atol=1e-6, rtol=0)


def test_a_frozen_factor_that_changed_is_found_at_the_end_of_training(tmp_path):
    class Meddler(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            if trainer.global_step == 7:
                pl_module.net.second.adapters["all"].factor_A.data[0, 0] += 1e-6

    with pytest.raises(RuntimeError, match=r"The frozen factor A changed in 1 adapters after step 3: second\.all"):
        fit(tmp_path, FreezeA(after_steps=3), Meddler())


def test_a_random_A_that_was_frozen_all_along_is_proved_too(tmp_path):
    freeze = FreezeA()
    fit(tmp_path, freeze, adapter={})
    assert freeze.frozen_at == 0 and len(freeze._digests) == 2


def test_two_instances_are_resumed_apart(tmp_path):
    assert FreezeA("A").state_key != FreezeA("B").state_key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": "C"}, "`factor` must be one of A, B, not 'C'"),
        ({"after_steps": 1, "monitor": "x"}, "`after_steps` and `monitor` say twice when to freeze"),
        ({"after_steps": -1}, "`after_steps` must be at least 0 or null, not -1"),
        ({"after_fraction": 1.0}, "`after_fraction` must be between 0 and 1, got 1.0"),
        ({"monitor": "x", "patience": 0}, "`patience` must be at least 1"),
        ({"monitor": "x", "mode": "up"}, "`mode` must be one of min, max, not 'up'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FreezeA(**options)


def test_freezing_all_that_trains_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Freezing B would leave nothing to train.*hB_zero_A_rand"):
        fit(tmp_path, FreezeA("B", after_steps=3), adapter={})


def test_the_overlay_freezes_a_tenth_of_the_way_and_keeps_the_callbacks_of_the_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = [
        Path(__file__).parents[2] / "configs" / name for name in ("quickstart.yaml", "adapters/b_only_r8_warm.yaml")
    ]
    options = [option for config in configs for option in ("--config", str(config))]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "2"]
    assert main(["fit", *options, *quiet]) == 0
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["callbacks"]["FreezeA[A]"]["frozen_at"] == 2  # of 20 steps
    A = state["state_dict"]["backbone.blocks.0.attn.qkv.adapters.q.factor_A"]
    torch.testing.assert_close(A @ A.T, torch.eye(8), atol=1e-5, rtol=0)
