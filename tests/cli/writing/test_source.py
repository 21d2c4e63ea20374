"""Which weights a base model has that is asked for beside a run."""

from __future__ import annotations

import json

import pytest
import yaml

from asym_lightning.cli import main
from asym_lightning.cli.writing.source import load_source
from tests.cli.writers import RECORDS, base_model, random_adapter


@pytest.mark.parametrize(
    "model",
    [
        {"adapter": {"rank": 2, "targets": ["q"], "heads": ["lm_head"]}},
        {"adapter": None, "train_backbone": True},
    ],
    ids=["head", "everything"],
)
def test_a_run_that_trained_weights_of_the_base_has_no_base_to_lay_adapters_over(model, tmp_path):
    (tmp_path / "alpaca.json").write_text(json.dumps(RECORDS))
    base = base_model(tmp_path / "llama")
    config = {
        "model": {"class_path": "InstructionTuner", "backbone": base, **model},
        "data": {"class_path": "AlpacaDataModule", "train": str(tmp_path / "alpaca.json"), "num_val": 0,
                 "cache_dir": str(tmp_path / "cache")},
        "trainer": {"accelerator": "cpu", "max_steps": 1, "enable_progress_bar": False, "enable_model_summary": False,
                    "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": "run"}}},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    other = random_adapter(tmp_path / "other", base, seed=1)
    found = load_source(tmp_path / "run" / "version_0", adapters={"other": other}, device="cpu")
    with found.adapters.using(None):
        assert found.template == "alpaca"
    for name in ("other", "base"):
        with pytest.raises(ValueError, match=f"`adapter` '{name}' needs the base model, but the run trained weights"):
            found.adapters.check(name)
