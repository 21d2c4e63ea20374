"""What the machine has not, and what is no strategy, is said before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asym_lightning.cli import main
from asym_lightning.cli.devices import check_devices

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("devices", [3, "3", [0, 2], "1,2"])
def test_more_devices_than_there_are(two_gpus, devices):
    with pytest.raises(ValueError, match=r"asks for more than the 2 GPU\(s\) of this machine"):
        check_devices({"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("devices", [2, "2", [0, 1], "1,", "auto", -1, "-1"])
def test_as_many_devices_as_there_are(two_gpus, devices):
    check_devices({"accelerator": "cuda", "devices": devices, "strategy": "ddp"})


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none_is_one_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(QUICKSTART), "--trainer.accelerator", "gpu", "--trainer.devices", "4"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: `trainer.accelerator: gpu` asks for a GPU, but")
    assert list(tmp_path.iterdir()) == []


def test_a_strategy_that_is_none_is_answered_with_the_nearest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(QUICKSTART), "--trainer.strategy", "dpp"]) == 1
    assert "`trainer.strategy` 'dpp' is not known: did you mean ddp?" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook_find_unused_parameters_true"])
def test_strategies_that_lose_what_they_train_are_refused(strategy):
    with pytest.raises(ValueError, match=f"`trainer.strategy: {strategy}` trains in processes that end with what they"):
        check_devices({"strategy": strategy})
