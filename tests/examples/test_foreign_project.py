"""The example for other people's projects does what it says, in Python and in YAML."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "callbacks" / "foreign_project.yaml"


@pytest.mark.parametrize(
    ("options", "run"),
    [
        pytest.param([], "runs/foreign_project/version_0", marks=pytest.mark.slow),
        (["fit", "--config", str(CONFIG)], "lightning_logs/version_0"),
    ],
)
def test_the_example_trains_watches_and_saves(options, run, tmp_path):
    command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "foreign_project.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (norms,) = tmp_path.rglob("b_norms.csv")
    assert norms.parent == tmp_path / run
    (best,) = tmp_path.rglob("best.ckpt")
    assert (best.with_suffix(".adapter") / "adapter_model.safetensors").is_file()
    state = torch.load(best, weights_only=True)["state_dict"]
    backbone = {name for name in state if name.startswith("backbone.") and ".adapters." not in name}
    assert not backbone
    assert int(state["backbone.blocks.0.attn.qkv.adapters.q._extra_state"]) == 8
