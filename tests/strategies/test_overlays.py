"""Every overlay of configs/strategies goes on top of every task, and trains where a CPU can."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch.distributed as dist
import yaml

from asym_lightning.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = sorted((CONFIGS / "strategies").glob("*.yaml"))
NOT_TASKS = ("adapters", "strategies", "overlays", "callbacks")
TASKS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name not in NOT_TASKS]
NEEDS_CUDA = {"fsdp"}
NEEDS_PACKAGE = {"int8": "bitsandbytes", "nf4": "bitsandbytes"}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    # What Lightning leaves behind where a run is distributed, if only over one process.
    os.environ.clear()
    os.environ.update(before)
    if dist.is_initialized():
        dist.destroy_process_group()


def options(*configs: Path) -> list[str]:
    return [option for config in configs for option in ("--config", str(config))]


def merged(given: dict, into: dict) -> dict:
    for key, value in given.items():
        both = isinstance(value, dict) and isinstance(into.get(key), dict)
        into[key] = merged(value, into[key]) if both else value
    return into


@pytest.mark.parametrize("task", TASKS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_overlay_goes_on_top_of_a_task(task, capsys):
    # All in one command, since a start takes its time; each is parsed, and the last word on every option is kept.
    command = "test" if task.parent.name == "mmlu" else "fit"
    with pytest.raises(SystemExit) as stop:
        main([command, *options(task, *OVERLAYS), "--print_config"])
    assert stop.value.code == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    asked = {}
    for overlay in OVERLAYS:
        merged(yaml.safe_load(overlay.read_text()), asked)
    for name, value in asked["trainer"].items():
        if isinstance(value, (str, int)):
            assert str(resolved["trainer"][name]) == str(value)
    for name, value in asked.get("model", {}).items():
        assert resolved["model"]["init_args"][name] == value


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_trains_a_step_or_says_what_it_lacks(overlay, capsys):
    package = NEEDS_PACKAGE.get(overlay.stem)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    one_step = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    code = main(["fit", *options(CONFIGS / "quickstart.yaml", overlay), *one_step, *quiet])
    printed = capsys.readouterr()
    if overlay.stem in NEEDS_CUDA:
        assert code == 1 and printed.err.strip().splitlines()[-1].startswith("error: ")
        assert "GPU" in printed.err.strip().splitlines()[-1]
    else:
        assert code == 0, printed.err
        assert "trained " in printed.out and "adapter " in printed.out
