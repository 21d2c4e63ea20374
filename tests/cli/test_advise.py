"""What to train, said before training."""

from __future__ import annotations

import yaml

from asym_lightning.cli import main

QUICK = ["--data.num_train", "100", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
CONFIG = ["--config", "configs/quickstart.yaml"]


def advise(*options):
    return main(["advise", *CONFIG, *options, "--num-batches", "4", *QUICK[:4]])


def test_tables_of_layers_roles_and_ranks_and_an_overlay_that_fit_takes(tmp_path, capsys):
    path = tmp_path / "advised.yaml"
    assert advise("--out", str(path), "--budget", "9000") == 0
    out = capsys.readouterr().out
    for text in ("| blocks.0.attn.qkv.shared |", "| blocks.*.attn.qkv.shared |", "whitened_gradient", "| rank |",
                 "| 64 |", "trained numbers;", "train         ", "overlay       "):  # fmt: skip
        assert text in out
    overlay = yaml.safe_load(path.read_text())
    assert path.read_text().startswith("# Advised from calibration: ")
    assert overlay["model"]["adapter"]["scheme"] in out
    arguments = ["fit", *CONFIG, "--config", str(path), *QUICK, "--trainer.logger.save_dir", str(tmp_path / "runs")]
    assert main(arguments) == 0


def test_rules_can_be_named(capsys):
    assert advise("--rules", "rand", "block") == 0
    out = capsys.readouterr().out
    assert "| rand | block | A trained |" in out and "gradient" not in out


def test_what_can_not_be_advised_is_refused(capsys):
    assert main(["advise"]) != 0
    assert "`advise` needs `--config`" in capsys.readouterr().err
    assert advise("--rules", "mine") != 0
    assert "there is no init rule 'mine' for A" in capsys.readouterr().err
    assert main(["advise", *CONFIG, "--num-batches", "1", *QUICK[:4]]) != 0
    assert "`num_batches` must be at least 2" in capsys.readouterr().err
    assert main(["advise", *CONFIG, "--config", "configs/adapters/full.yaml", *QUICK[:4]]) != 0
    assert "a model without adapters" in capsys.readouterr().err
