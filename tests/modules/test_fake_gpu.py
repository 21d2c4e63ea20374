"""Whole training steps of every task, arm, precision and callback on a device that is not the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from asym_lightning.adapters.rank.policies import Milestones
from asym_lightning.callbacks import FreezeA, RankScheduler
from asym_lightning.modules import QuestionAnswerer, SentenceEncoder
from asym_lightning.modules.language.generative_module import GenerativeModule
from tests import fake_gpu
from tests.tasks import A_ONLY, ARMS, B_ONLY, BOTH, CALLBACKS, TASKS, Foreign, config, foreign

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
CHANGES = [
    (A_ONLY, lambda: [RankScheduler(Milestones({0: 2, 1: 4}))]),
    (BOTH, lambda: [RankScheduler(Milestones({0: 2, 1: 1}))]),
    (B_ONLY, lambda: [RankScheduler(Milestones({0: 3, 1: 2, 2: 3}))]),
    (BOTH, lambda: [FreezeA(after_steps=1)]),
    (BOTH, lambda: [FreezeA("B", after_steps=1, orthonormalize=True)]),
]
on_device = pytest.mark.skipif(not fake_gpu.IS_HERE, reason="there is no such device in this process")
not_on_device = pytest.mark.skipif(fake_gpu.IS_HERE, reason="this is the process with the device")


@pytest.fixture(scope="module", autouse=fake_gpu.IS_HERE)
def device():
    yield fake_gpu.register()


@not_on_device
def test_steps_on_a_fake_gpu() -> None:
    fake_gpu.in_own_process(__file__, "not slow")


@not_on_device
@pytest.mark.slow
def test_all_steps_on_a_fake_gpu() -> None:
    fake_gpu.in_own_process(__file__, "slow")


@on_device
def test_a_step_of_a_language_model(tmp_path) -> None:
    fake_gpu.steps(tmp_path, *TASKS["instructions"](config()), [], "16-mixed")


@on_device
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("task", TASKS)
def test_a_step_of_each_task_in_each_precision(task, precision, tmp_path) -> None:
    fake_gpu.steps(tmp_path, *TASKS[task](config()), [], precision)


@on_device
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_steps_of_each_task_that_are_logged(task, tmp_path) -> None:
    # The third is the first that has neither state of an optimizer nor groups of metrics to make.
    made = fake_gpu.steps(tmp_path, *TASKS[task](config()), [], "bf16-mixed", num_steps=3, logs=True)
    assert all(made) and len(made) == 3


@on_device
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["validate", "test", "predict"])
@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_evaluated_and_predicts(task, loop, tmp_path) -> None:
    module, batch = TASKS[task](config())
    if isinstance(module, GenerativeModule):
        if loop == "predict":
            pytest.skip("what is generated next is read off the device")
        module.num_samples = {"val": 0, "test": 0}
    elif loop == "predict" and isinstance(module, QuestionAnswerer):
        pytest.skip("where answers stand is read off the device")
    elif loop == "predict" and isinstance(module, SentenceEncoder):
        batch = {name: batch[f"anchor_{name}"] for name in ("input_ids", "attention_mask")}
    module.prediction_rows = lambda *given: []  # so is what is written
    fake_gpu.steps(tmp_path, module, batch, [], "bf16-mixed", loop=loop)


@on_device
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scheme", ARMS)
@pytest.mark.parametrize("task", ["images", "instructions"])
def test_a_step_of_each_arm(task, scheme, precision, tmp_path) -> None:
    fake_gpu.steps(tmp_path, *TASKS[task](config(scheme=scheme)), [], precision)


@on_device
@pytest.mark.parametrize(("scheme", "callbacks"), [*CALLBACKS, *CHANGES])
def test_a_step_with_each_callback_and_change(scheme, callbacks, tmp_path) -> None:
    fake_gpu.steps(tmp_path, *foreign(scheme, callbacks()), "bf16-mixed")


@on_device
@pytest.mark.parametrize("scheme", ARMS)
def test_each_step_is_the_kernels_of_the_one_before_of_the_same_sizes(scheme, tmp_path) -> None:
    # What a CUDA graph replays. The first step has the optimizer's state to make, and the others nothing.
    first, second, third = fake_gpu.steps(tmp_path, *foreign(scheme, []), "bf16-mixed", num_steps=3)
    assert first != second == third and len(second) > 20


class Astray(Foreign):
    """Leaves something where it should not be."""

    def __init__(self, mistake) -> None:
        super().__init__()
        self.mistake = mistake

    def training_step(self, batch, batch_idx):
        return self.mistake(self.net(batch[0]), batch[1])


MISTAKES = {
    "two (different )?devices": lambda y, target: F.mse_loss(y + torch.ones(2), target),
    "dtype": lambda y, target: F.mse_loss(y.half() @ y.T.bfloat16(), target[:, :1]),
    "local_scalar_dense": lambda y, target: F.mse_loss(y * float(y.sum()), target),
    "nonzero": lambda y, target: F.mse_loss(y[target > 0], target[target > 0]),
}


@on_device
@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_found(message, tmp_path) -> None:
    _, batch, callbacks = foreign(B_ONLY, [])
    with pytest.raises(Exception, match=message):
        fake_gpu.steps(tmp_path, Astray(MISTAKES[message]), batch, callbacks, "32-true")
