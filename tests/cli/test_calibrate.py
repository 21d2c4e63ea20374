"""A chosen once, for any number of runs."""

from __future__ import annotations

import pytest
import torch
import yaml

from asym_lightning.adapters.files.chosen import read_chosen
from asym_lightning.cli import main

QUICK = ["--data.num_train", "100", "--trainer.max_epochs", "1"]
CONFIG = ["--config", "configs/quickstart.yaml"]


def calibrate(path, *options):
    return main(["calibrate", *CONFIG, "--out", str(path), *options, "--num-batches", "2", *QUICK])


def test_the_file_serves_runs_of_its_rank_and_of_smaller_ones(tmp_path, capsys):
    path = tmp_path / "A.safetensors"
    assert calibrate(path, "--model.adapter.rank", "8") == 0
    assert f"6 A's of rank 8  {path}" in capsys.readouterr().out
    chosen = read_chosen(path)
    assert chosen.rule == "whitened_gradient" and chosen.made_by["num_batches"] == 2
    for rank in (8, 4):
        overlay = tmp_path / f"{rank}.yaml"
        callback = {"class_path": "asym_lightning.callbacks.CalibrateA", "init_args": {"file": str(path)}}
        overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
        save_dir = tmp_path / f"runs{rank}"
        arguments = ["fit", *CONFIG, "--config", str(overlay), *QUICK, "--model.adapter.rank", str(rank),
                     "--trainer.logger.save_dir", str(save_dir), "--trainer.limit_train_batches", "1"]  # fmt: skip
        assert main(arguments) == 0
        (checkpoint,) = save_dir.rglob("best.ckpt")
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        for name, A in chosen.factors.items():
            key = f"backbone.{name.replace('.shared', '.adapters.q')}.factor_A"
            assert torch.equal(state[key], A[:rank])


def test_rules_by_name_and_no_file_where_something_is_wrong(tmp_path, capsys):
    path = tmp_path / "A.safetensors"
    assert calibrate(path, "--rule", "inputs", "--head-steps", "1", "--layers-at-a-time", "2") == 0
    assert read_chosen(path).rule == "inputs"
    path.unlink()
    assert calibrate(path, "--rule", "rand") != 0
    assert "`rule` 'rand' draws from no data" in capsys.readouterr().err
    assert main(["calibrate", "--out", str(path)]) != 0
    assert "`calibrate` needs `--config`" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("tool", ["calibrate", "advise"])
def test_it_leaves_no_run_behind(tool, tmp_path, monkeypatch, capsys):
    config = [*CONFIG[:1], f"{__file__.rpartition('/tests/')[0]}/{CONFIG[1]}"]
    monkeypatch.chdir(tmp_path)
    out = ["--out", "out"]
    assert main([tool, *config, *out, "--num-batches", "2", *QUICK]) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
