"""One task after another, each with an A that leaves the earlier tasks' inputs alone."""

import pytest
import torch
from lightning.pytorch import seed_everything

from asym_lightning.adapters import AdapterConfig, adapters_by_name, merge_adapters
from asym_lightning.adapters.files.task_inputs import read_task_inputs
from asym_lightning.adapters.rank.policies import Milestones
from asym_lightning.callbacks import AdapterCheckpoint, CalibrateA, FreezeA, RankScheduler
from tests.callbacks.foreign import Foreign, injection, loader, trainer

TASKS = 3


def narrow(task):
    """Rows that have a third of all directions each, so that three tasks can be kept apart."""
    data = loader(shuffle=True)
    x, _ = data.dataset.tensors
    x[:, [i for i in range(12) if i // 4 != task]] = 0.0
    return data


def fit_task(path, task, module, rule="inputs", file="tasks.safetensors", adapter=None, callbacks=(), **options):
    calibrate = CalibrateA(rule, tasks=path / file, share=0.999, num_batches=5)
    adapter = {"slot": task, "targets": ["first"], **(adapter or {})}
    callbacks = [injection(adapter=adapter), calibrate, FreezeA(), *callbacks]
    run = trainer(path, *callbacks, enable_checkpointing=len(callbacks) > 3)
    seed_everything(0, verbose=False)
    run.fit(module, narrow(task), loader(), **options)
    return calibrate


@pytest.mark.parametrize("rule", ["inputs", "gradient", "whitened_gradient"])
def test_an_earlier_task_s_function_is_kept(rule, tmp_path):
    module = Foreign()
    module.net.norm.eval()
    seen = []
    for task in range(TASKS):
        x = narrow(task).dataset.tensors[0]
        fit_task(tmp_path, task, module, rule)
        A = adapters_by_name(module.net)["first.all"].A.detach()
        torch.testing.assert_close(A @ A.T, torch.eye(2), atol=1e-5, rtol=0)
        assert module.net.first.delta_weight().norm() > 1e-3  # it has learned something
        merge_adapters(module, keep_weights=False)
        for earlier, outputs in seen:
            assert (earlier @ A.T).norm() < 1e-3 * earlier.norm()
            torch.testing.assert_close(module.net.first(earlier), outputs, atol=1e-4, rtol=1e-4)
        seen.append((x, module.net.first(x).detach()))
    tasks = read_task_inputs(tmp_path / "tasks.safetensors")
    assert tasks.counts["first"] == [4, 4, 4] and tasks.num_tasks == TASKS
    rows = tasks.directions["first"]
    torch.testing.assert_close(rows @ rows.T, torch.eye(12), atol=1e-5, rtol=0)


def test_the_same_task_again_gives_the_same_file(tmp_path):
    fit_task(tmp_path, 0, module := Foreign())
    merge_adapters(module, keep_weights=False)
    state, files = {name: tensor.clone() for name, tensor in module.state_dict().items()}, []
    for _ in range(2):
        again = Foreign()
        again.load_state_dict(state)
        calibrate = fit_task(tmp_path, 1, again)
        files.append((calibrate.chosen.factors, read_task_inputs(tmp_path / "tasks.safetensors")))
    for name, A in files[0][0].items():
        assert torch.equal(A, files[1][0][name])
    assert files[0][1].counts == files[1][1].counts


def test_a_resumed_task_goes_on_with_its_A_and_adds_its_inputs(tmp_path):
    fit_task(tmp_path, 0, module := Foreign())
    merge_adapters(module, keep_weights=False)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    keep = AdapterCheckpoint(tmp_path / "c", filename="{step}", save_top_k=-1, every_n_train_steps=4)
    chosen = fit_task(tmp_path, 1, module, callbacks=[keep]).chosen
    before = read_task_inputs(tmp_path / "tasks.safetensors")
    resumed = Foreign()
    resumed.load_state_dict(state)
    calibrate = fit_task(tmp_path, 1, resumed, ckpt_path=tmp_path / "c" / "step=4.ckpt")
    assert calibrate.chosen is None
    assert torch.equal(adapters_by_name(resumed.net)["first.all"].A, chosen.factors["first.all"])
    after = read_task_inputs(tmp_path / "tasks.safetensors")
    assert after.counts == before.counts and after.num_tasks == 2
    for name, rows in after.before(1).items():
        assert torch.equal(rows, before.before(1)[name])


def test_what_does_not_fit_is_refused_before_training(tmp_path):
    fit_task(tmp_path, 0, module := Foreign())
    merge_adapters(module, keep_weights=False)
    with pytest.raises(FileNotFoundError, match=r"`.*none.safetensors` is no file of tasks' inputs"):
        fit_task(tmp_path, 1, Foreign(), file="none.safetensors")
    with pytest.raises(ValueError, match=r"`slot` is 2, and `.*` has the inputs of 1 tasks: train the tasks in order"):
        fit_task(tmp_path, 2, Foreign())
    with pytest.raises(ValueError, match=r"other targets: `second` is not in it\. It has first; train every task"):
        fit_task(tmp_path, 1, Foreign(), adapter={"targets": ["first", "second"]})
    with pytest.raises(ValueError, match=r"other targets: `first` is not adapted here\. It has first"):
        fit_task(tmp_path, 1, Foreign(), adapter={"targets": ["second"]})
    other = Foreign()
    other.net.first.bias.detach().add_(1)
    with pytest.raises(ValueError, match=r"of another backbone: `first.bias` starts with .* here and with"):
        fit_task(tmp_path, 1, other)
    with pytest.raises(ValueError, match=r"leave 8 of the 12 directions of `first.all`, fewer than rank 9: take"):
        fit_task(tmp_path, 1, Foreign(), adapter={"rank": 9})
    with pytest.raises(ValueError, match="`slot` is 1, and CalibrateA chooses A by data: name the file"):
        trainer(tmp_path, injection(adapter={"slot": 1}), CalibrateA()).fit(Foreign(), loader())
    with pytest.raises(ValueError, match="`slot` is 1 and `max_rank` 4, but rows by which A grows know nothing"):
        fit_task(tmp_path, 1, Foreign(), callbacks=[RankScheduler(Milestones({1: 4}))])
    with pytest.raises(ValueError, match="`tasks` says beside what A is to be chosen"):
        CalibrateA(file="A.safetensors", tasks="tasks.safetensors")
    for task in (1, 2):
        fit_task(tmp_path, task, module)
        merge_adapters(module, keep_weights=False)
    with pytest.raises(ValueError, match=r"has the inputs of 3 tasks, and `slot` 0 would drop those of later ones"):
        fit_task(tmp_path, 0, Foreign())


def test_a_trial_run_writes_nothing(tmp_path):
    calibrate = CalibrateA("inputs", tasks=tmp_path / "tasks.safetensors")
    trainer(tmp_path, injection(), calibrate, fast_dev_run=True).fit(Foreign(), loader(), loader())
    assert not (tmp_path / "tasks.safetensors").exists()
    assert AdapterConfig("hB_zero_A_inputs", slot=3).slot == 3
