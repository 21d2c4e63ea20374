"""FSDP2 on two CPU processes: it comes to what one process comes to, in files too."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, load_adapters, save_adapters
from asym_lightning.callbacks import AdapterCheckpoint, BNormMonitor, CalibrateA, FreezeA, Milestones, RankScheduler
from asym_lightning.cli.errors import check_checkpoint
from asym_lightning.core.dtensor import is_sharded, whole, whole_state_dict
from asym_lightning.modules import ImageClassifier
from asym_lightning.strategies import FSDP2Strategy
from tests.callbacks.foreign import Foreign, build_net, injection, loader, trainer
from tests.strategies import digits_run
from tests.strategies.digits_run import NUM_STEPS
from tests.two_processes import in_two_processes

ARMS = {
    "b_only": {"rank": 4},
    "lora": {"rank": 4, "scheme": "hB_zero_hA_he"},
    "svd": {"rank": 4, "scheme": "hB_U_A_V", "alpha": 0.1},  # a large alpha takes away half of what it starts from
    "clipped": {"rank": 4},
    "checkpointed": {"rank": 4},
    "full": None,
}
TRAINER = {"clipped": {"gradient_clip_val": 0.1}}


def classifier(arm: str = "b_only", backbone: str | nn.Module = "vit_digits", **adapter) -> ImageClassifier:
    options = ARMS[arm]
    if options is not None:
        options = AdapterConfig(**{"targets": ["q", "k", "v", "o"], **options, **adapter})
    return ImageClassifier(
        backbone,
        num_classes=10,
        adapter=options,
        train_backbone=options is None,
        optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )


def fit(folder: Path, module, *callbacks: Callback, strategy=None, **options) -> Trainer:
    return digits_run.fit(folder, module, *callbacks, strategy=strategy or FSDP2Strategy(), **options)


class Start(Callback):
    """Keeps what the run starts from."""

    def on_fit_start(self, trainer, pl_module):
        self.state = gathered(pl_module)


def gathered(module: nn.Module) -> dict:
    state = module.state_dict()
    return {name: tensor.clone() for name, tensor in whole_state_dict(state, state).items()}


def local_bytes(module: nn.Module) -> int:
    return sum((p.to_local() if is_sharded(p) else p).nbytes for p in module.parameters())


def every_arm(folder: Path) -> dict:
    """In both processes."""
    results = {}
    for arm in ARMS:
        module, start = classifier(arm), Start()
        strategy = FSDP2Strategy(activation_checkpointing=arm == "checkpointed")
        fit(folder / arm, module, start, strategy=strategy, **TRAINER.get(arm, {}))
        results[arm] = {"start": start.state, "end": gathered(module), "bytes": local_bytes(module)}
        results[arm]["all sharded"] = all(is_sharded(p) for p in module.parameters())
    return results


def start_from(module: ImageClassifier, state: dict) -> ImageClassifier:
    """The same head; all else has to be the same by itself."""
    module.configure_model()
    own = module.state_dict()
    for name, tensor in state.items():
        if name.startswith("backbone.head."):
            own[name].copy_(tensor)
        elif isinstance(tensor, torch.Tensor):
            assert torch.equal(own[name], tensor), name
    return module


def assert_same(found: dict, expected: dict, atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    return [outcome.value for outcome in in_two_processes(every_arm, tmp_path_factory.mktemp("arms"))]


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_come_to_the_weights_of_one_on_the_same_global_batch(arm, arms, tmp_path):
    module = start_from(classifier(arm), arms[0][arm]["start"])
    fit(tmp_path, module, **TRAINER.get(arm, {}))
    assert any(not torch.equal(value, arms[0][arm]["start"][name]) for name, value in module.state_dict().items())
    for process in (0, 1):
        assert_same(arms[process][arm]["end"], module.state_dict())


def test_each_process_holds_half_of_everything(arms):
    module = classifier()
    module.configure_model()
    total = sum(p.nbytes for p in module.parameters())
    held = [arms[process]["b_only"]["bytes"] for process in (0, 1)]
    assert sum(held) == total and max(held) < 0.55 * total
    assert all(arms[process][arm]["all sharded"] for process in (0, 1) for arm in ARMS)


def callbacks(folder: Path, *more: Callback) -> list[Callback]:
    """Ranks that fall and rise, A frozen in mid-course, and all that is written of it."""
    return [
        RankScheduler(Milestones({1: 2, 3: 5})),
        FreezeA(after_steps=2, orthonormalize=True),
        BNormMonitor(every_n_steps=1, file=folder / "norms.csv"),
        AdapterCheckpoint(folder, "{step}", every_n_train_steps=2, save_top_k=-1, save_on_train_epoch_end=False),
        *more,
    ]


def scheduled(folder: Path) -> dict:
    """In both processes."""
    module, start = classifier("lora", max_rank=5), Start()
    fit(folder, module, *callbacks(folder, start))
    ranks = {name: adapter.rank for name, adapter in adapters_by_name(module.backbone).items()}
    end = gathered(module)
    # Into a sharded model, and out of it again.
    load_adapters(module.backbone, folder / "step=4.adapter")
    save_adapters(module.backbone, folder / "loaded")
    return {"start": start.state, "end": end, "ranks": ranks}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, [outcome.value for outcome in in_two_processes(scheduled, folder)]


@pytest.fixture(scope="module")
def one(tmp_path_factory, two):
    folder = tmp_path_factory.mktemp("one")
    module = start_from(classifier("lora", max_rank=5), two[1][0]["start"])
    fit(folder, module, *callbacks(folder))
    return folder, module


def resume(folder: Path, checkpoint: Path) -> dict:
    """Go on from a checkpoint in as many processes as there are; the backbone is the same file."""
    module = classifier("lora", max_rank=5)
    fit(folder, module, *callbacks(folder), ckpt_path=str(checkpoint))
    return gathered(module)


def test_ranks_change_and_a_freezes_on_every_process_alike(one, two):
    module = one[1]
    for found in two[1]:
        assert set(found["ranks"].values()) == {5}
        assert_same(found["end"], module.state_dict(), atol=1e-5)


def test_norms_come_from_shards_as_from_the_whole(one, two):
    here, there = (
        [line.replace(" ", ",").split(",") for line in (run[0] / "norms.csv").read_text().splitlines()]
        for run in (one, two)
    )
    assert here[0] == there[0] and len(here) == len(there) > 1
    for mine, theirs in zip(here[1:], there[1:], strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == b or float(a) == pytest.approx(float(b), rel=1e-3, abs=1e-6)


def test_adapter_files_are_those_of_one_process(one, two):
    for name in ("step=2.adapter", "step=4.adapter", "step=6.adapter"):
        mine, theirs = (load_file(run[0] / name / "adapter_model.safetensors") for run in (one, two))
        assert_same(mine, theirs, atol=1e-5)
    loaded, saved = (load_file(two[0] / n / "adapter_model.safetensors") for n in ("loaded", "step=4.adapter"))
    assert_same(loaded, saved, atol=0)


def test_one_process_goes_on_from_the_checkpoint_of_two(two, tmp_path):
    assert_same(resume(tmp_path, two[0] / "step=4.ckpt"), two[1][0]["end"], atol=1e-5)


def test_two_processes_go_on_from_the_checkpoint_of_one(one, tmp_path):
    outcomes = in_two_processes(resume, tmp_path, one[0] / "step=4.ckpt")
    for outcome in outcomes:
        assert_same(outcome.value, one[1].state_dict(), atol=1e-5)


def refused(folder: Path, case: str) -> str:
    """In both processes: the message with which a run is refused."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else int(os.environ["RANK"])
    module, strategy = classifier(), FSDP2Strategy()
    if case == "unequal adapters":
        module = classifier(seed=rank)
    elif case == "offload on a CPU":
        strategy = FSDP2Strategy(cpu_offload=True)
    elif case == "packed":
        module = classifier(path="packed")
    elif case == "bare strategy":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    elif case == "foreign module without injection":
        module = Foreign("configure_model")
    with pytest.raises(ValueError) as refusal:
        fit(folder, module, strategy=strategy)
    assert module.global_step == 0
    return str(refusal.value)


REFUSALS = {
    "unequal adapters": "`adapter.seed` is 0 in process 0 and 1 in process 1",
    "offload on a CPU": "`cpu_offload: true` moves shards from a device to the CPU",
    "packed": "Path 'packed' lays W and A out as one matrix, which can't be sharded",
    "bare strategy": "use asym_lightning.strategies.FSDP2Strategy",
    "foreign module without injection": "Foreign is neither",
}


def every_refusal(folder: Path) -> dict[str, str]:
    return {case: refused(folder, case) for case in REFUSALS}


@pytest.mark.slow
def test_what_can_not_go_on_is_refused_by_every_process_in_one_sentence(tmp_path):
    outcomes = in_two_processes(every_refusal, tmp_path)
    for case, message in REFUSALS.items():
        first, second = (outcome.value[case] for outcome in outcomes)
        assert message in first and first == second and first.count("\n") == 0


def shards_saved_and_resumed(folder: Path) -> dict:
    """In both processes: full fine-tuning whose checkpoint is a folder of shards, and a run that goes on from it."""
    checkpoints = ModelCheckpoint(folder, "{step}", save_top_k=-1)
    module = classifier("full")
    fit(folder, module, checkpoints, strategy=FSDP2Strategy(save_distributed_checkpoint=True), max_epochs=2)
    again = classifier("full")
    path = str(folder / f"step={NUM_STEPS}.ckpt")
    fit(folder, again, strategy=FSDP2Strategy(save_distributed_checkpoint=True), max_epochs=2, ckpt_path=path)
    with pytest.raises(ValueError, match="the model has adapters, the checkpoint has none") as other:
        fit(folder, classifier("b_only"), ckpt_path=path)
    return {"end": gathered(module), "resumed": gathered(again), "other": str(other.value)}


@pytest.mark.slow
def test_a_folder_of_shards_is_resumed(tmp_path):
    for outcome in in_two_processes(shards_saved_and_resumed, tmp_path):
        assert_same(outcome.value["resumed"], outcome.value["end"], atol=0)


def foreign(folder: Path) -> dict:
    """In both processes: a module that knows nothing of adapters, under FSDP2."""
    module = Foreign("configure_model")
    checkpoints = AdapterCheckpoint(folder, "x")
    trainer(
        folder, injection(), checkpoints, BNormMonitor(every_n_steps=2, file=folder / "norms.csv"),
        strategy=FSDP2Strategy(), devices=2, max_epochs=2, enable_checkpointing=True,
    ).fit(module, loader())  # fmt: skip
    assert all(is_sharded(p) for p in module.parameters())
    return gathered(module)


@pytest.mark.slow
def test_a_foreign_module_is_sharded_by_adapter_injection(tmp_path):
    outcomes = in_two_processes(foreign, tmp_path)
    assert_same(outcomes[0].value, outcomes[1].value, atol=0)
    net = build_net()
    load_adapters(net, tmp_path / "x.adapter")
    assert any(adapter.B.any() for adapter in adapters_by_name(net).values())


def test_a_folder_of_shards_is_refused_where_no_fsdp2_reads_it(tmp_path):
    check_checkpoint(str(tmp_path), "Namespace(class_path='asym_lightning.strategies.FSDP2Strategy')")
    with pytest.raises(ValueError, match=r"resume it with configs/strategies/fsdp2\.yaml"):
        check_checkpoint(str(tmp_path), "ddp")


def calibrated(folder: Path) -> dict:
    """In both processes."""
    module, start = classifier(), Start()
    calibrate = CalibrateA(num_batches=3, head_steps=2)
    fit(folder, module, calibrate, start)
    ends = {adapter.A_key: whole(adapter.factor_A) for adapter in adapters_by_name(module.backbone).values()}
    return {"start": start.state, "chosen": dict(calibrate.chosen.factors), "ends": ends}


def test_A_is_chosen_as_one_process_chooses_it(tmp_path):
    found, other = (outcome.value for outcome in in_two_processes(calibrated, tmp_path))
    head = {name: tensor for name, tensor in found["start"].items() if name.startswith("backbone.head.")}
    module = start_from(classifier(scheme="hB_zero_A_whitened_gradient"), head)
    calibrate = CalibrateA(num_batches=3, head_steps=2)
    fit(tmp_path, module, calibrate)
    assert calibrate.chosen.factors.keys() == found["chosen"].keys()
    for name, A in calibrate.chosen.factors.items():
        assert torch.equal(found["chosen"][name], other["chosen"][name])
        assert torch.equal(found["chosen"][name], found["ends"][name])
        spanned = (A @ found["chosen"][name].T).square().sum()
        assert spanned == pytest.approx(len(A), rel=1e-3), name
