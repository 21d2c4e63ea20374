"""The scripts for several nodes, on one node with two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples" / "several_nodes").glob("*.sh"))
# What SLURM's `srun` does on one node: start the tasks, tell each its number, and fail if one does.
SRUN = """#!/usr/bin/env bash
shift
for number in 0 1; do SLURM_PROCID=$number SLURM_LOCALID=$number "$@" & tasks+=($!); done
for task in "${tasks[@]}"; do wait "$task" || exit 1; done
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_a_shell_script(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert os.access(script, os.X_OK)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_trains_with_two_processes(script, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN)
    (programs / "srun").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"NNODES": 1, "NTASKS": 2, "NTASKS_PER_NODE": 2, "NODEID": 0, "JOB_ID": 12345, "JOB_NAME": "asym-lightning"}
    cluster = {f"SLURM_{name}": str(value) for name, value in slurm.items()} if script.stem == "slurm" else {}
    environment = {**os.environ, "PATH": path, "PER_NODE": "2", "PORT": "29517", "OMP_NUM_THREADS": "1", **cluster}
    configs = [ROOT / "configs" / "quickstart.yaml", ROOT / "configs" / "strategies" / "ddp.yaml"]
    options = ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    command = [str(script), *[o for config in configs for o in ("--config", str(config))], *options]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    assert done.stdout.count("trained        14,794 of 692,842 parameters") == 1
