"""What configs and options may say, and what they mean together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asym_lightning.adapters import AdapterConfig
from asym_lightning.cli import main
from asym_lightning.cli.built_model import BuiltRun
from asym_lightning.cli.short_config import with_init_args
from asym_lightning.cli.untrained import warn_of_fresh_parts
from asym_lightning.modules import ImageClassifier, WarmupSchedule

QUICKSTART = ("--config", "quickstart")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(*options: str):
    return BuiltRun([*QUICKSTART, *options]).model


def test_a_later_schedule_of_another_class_takes_the_place_of_the_quickstarts():
    Path("step.yaml").write_text("model: {scheduler: {class_path: StepLR, init_args: {step_size: 1}}}")
    for options in (["--config", "step.yaml"], ["--model.scheduler", "StepLR", "--model.scheduler.step_size", "1"]):
        assert not isinstance(model(*options).scheduler, WarmupSchedule)
    assert model("--model.scheduler.warmup", "0.3").scheduler == WarmupSchedule(0.3)


def test_a_schedule_that_moves_each_step():
    Path("cycle.yaml").write_text(
        "model: {scheduler: {class_path: TorchSchedule, init_args: {make: {class_path: OneCycleLR, "
        "init_args: {max_lr: 0.1, total_steps: 9}}, interval: step}}}"
    )
    schedule = model("--config", "cycle.yaml").scheduler
    assert (schedule.interval, schedule.frequency) == ("step", 1)
    made = schedule.make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1))
    assert isinstance(made, torch.optim.lr_scheduler.OneCycleLR) and made.total_steps == 9


def test_one_target_needs_no_list():
    assert model("--model.adapter.targets", "q").adapter.targets == ("q",)
    assert model("--model.adapter.targets", "[q, v]").adapter.targets == ("q", "v")
    assert AdapterConfig(targets="q", exclude="head").exclude == ("head",)


def test_a_section_that_is_there_twice_is_refused(capsys):
    Path("twice.yaml").write_text("model: {adapter: {rank: 2}}\ntrainer: {max_epochs: 1}\nmodel: {num_classes: 10}\n")
    assert main(["fit", *QUICKSTART, "--config", "twice.yaml"]) != 0
    assert "line 3: `model` is here for the second time" in capsys.readouterr().err


def test_an_adapter_that_is_evaluated_without_a_checkpoint_is_warned_of():
    module = ImageClassifier("vit_digits", 10, AdapterConfig())
    module.configure_model()
    with pytest.warns(UserWarning, match="no `--ckpt_path`: the adapter and the head are fresh"):
        warn_of_fresh_parts(module)


@pytest.mark.parametrize("command", ["fit", "test"])
def test_the_short_form_holds_below_a_command_and_for_a_section_of_its_own(command):
    model = {"class_path": "ImageClassifier", "num_classes": 10}
    long = {"class_path": "ImageClassifier", "init_args": {"num_classes": 10}}
    assert with_init_args({command: {"model": model}}) == {command: {"model": long}}
    assert with_init_args(model) == long


def refusal(capsys, *options: str) -> str:
    assert main(["fit", *QUICKSTART, *options]) != 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.scheduler", "cosine"), "it is a `decay` of WarmupSchedule, as in `--model.scheduler.decay cosine`"),
        (("--model.adapter.scheme", "B_only"), "did you mean 'hB_zero_A_rand'?"),
        (("--model.adapter.scheme", "lora"), "did you mean 'hB_zero_hA_rand'?"),
    ],
)
def test_what_was_meant_is_said(options, message, capsys):
    assert message in refusal(capsys, *options)


def test_a_variable_that_nobody_fills_in_is_refused_by_its_line(capsys):
    Path("mine.yaml").write_text("trainer:\n  default_root_dir: ${SCRATCH}/runs\n")
    assert "`mine.yaml`, line 2: `${SCRATCH}` would stay as it is" in refusal(capsys, "--config", "mine.yaml")
