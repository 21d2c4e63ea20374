"""`report --soup`: the mean of the seeds of an arm, as an adapter that is scored like its members."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from asym_lightning.adapters import load_adapters, read_adapter
from asym_lightning.adapters.arithmetic import mean
from asym_lightning.cli import main
from asym_lightning.cli.trained_run import load_trained_run
from asym_lightning.data import DigitsDataModule
from tests.cli.test_sweep import TASK

NAME = "Digits_hB_zero_A_rand_r2"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits.yaml").write_text(yaml.safe_dump({**TASK, "test_after_fit": True}))
    for seed in ("0", "1"):
        logger = f"--trainer.logger.save_dir=runs/{seed}"
        assert main(["fit", "--config", "digits.yaml", "--seed_everything", seed, "--quiet", logger]) == 0
    return [config.parent for config in sorted(Path("runs").rglob("config.yaml"))]


def scores_by_hand(run, adapter):
    """Accuracy on the data of validation and test, without the command line."""
    module = load_trained_run(run).model
    load_adapters(module.backbone, adapter)
    data = DigitsDataModule(num_train=50)
    data.setup("test")
    with torch.no_grad():
        return [
            (module(images).argmax(1) == labels).float().mean().item()
            for loader in (data.val_dataloader(), data.test_dataloader())
            for images, labels in loader
        ]


def test_a_soup_is_the_mean_and_is_scored_beside_its_members(runs, capsys):
    capsys.readouterr()
    Path("runs/soups", NAME, "test").mkdir(parents=True)  # of an earlier report
    Path("runs/soups", NAME, "test", "config.yaml").touch()
    assert main(["report", "runs", "--soup"]) == 0
    soup = Path("runs/soups") / NAME
    found = read_adapter(soup / "adapter")
    expected = mean([read_adapter(run / "adapter") for run in runs])
    assert all(torch.equal(found.factors[name], tensor) for name, tensor in expected.factors.items())
    assert all(torch.equal(found.others[name], tensor) for name, tensor in expected.others.items())
    val, test = scores_by_hand(runs[0], soup / "adapter")
    assert json.loads((soup / "test/record.json").read_text())["metrics"]["test/accuracy"] == pytest.approx(test)
    output = capsys.readouterr().out
    row = next(
        line for line in Path("runs/soups.md").read_text().splitlines() if line.startswith("| hB_zero_A_rand_r2")
    )
    assert row.split(" | ")[4] == f"{val:.4f}"
    assert row.split(" | ")[6].startswith(f"{test:.4f}")
    assert row in output
    assert "<h2>Soups</h2>" in Path("runs/report.html").read_text()
    capsys.readouterr()
    assert main(["report", "runs"]) == 0
    assert "left out" not in capsys.readouterr().out  # the soup's own folders are no runs
