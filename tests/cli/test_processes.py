"""A run of several processes says what went wrong once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asym_lightning.cli import processes

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_first_process_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    processes.report_error("too bad.")
    assert capsys.readouterr().err == "error: too bad.\n"


def test_another_process_is_silent_where_the_first_is_gone(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(processes, "_PARENT", os.getppid() + 1)
    processes.report_error("too bad.")
    assert capsys.readouterr().err == ""


def test_another_process_that_fails_alone_speaks_in_the_end(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    processes.report_error("too bad.")
    assert capsys.readouterr().err == "error in process 3: too bad.\n"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_train_and_say_once_what_is_wrong(launcher, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    starts = {"lightning": [], "torchrun": [sys.executable, *torchrun]}
    program = [*starts[launcher], str(Path(sys.executable).with_name("lightning"))]
    config = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(CONFIGS / "strategies" / "ddp.yaml")]
    options = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.max_epochs", "1"]
    command = [*program, "fit", *config, *options, "--trainer.enable_progress_bar", "false"]

    def run(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=500)

    wrong = run("--model.adapter.targets", "[qq]")
    assert wrong.returncode != 0
    assert wrong.stderr.count("error: `targets` entry 'qq' matches no layer") == 1
    assert "error in process" not in wrong.stderr and list(tmp_path.iterdir()) == []
    right = run()
    assert right.returncode == 0, right.stderr
    assert right.stdout.count("trained        14,794 of 692,842 parameters") == 1
    (found,) = (tmp_path / "runs" / "quickstart").iterdir()
    assert {"config.yaml", "metrics.csv", "record.json", "checkpoints", "adapter"} <= {p.name for p in found.iterdir()}
