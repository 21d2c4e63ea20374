"""The quickstart, killed at random instants and resumed from its newest checkpoint, as a user would.

    ASYM_KILLS=50 pytest -m slow -s tests/lifecycle/test_kill.py

says how many of 50 ended with the bits of a run that nobody killed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.lifecycle.runs import differences

ROOT = Path(__file__).parents[2]
NUM_KILLS = int(os.environ.get("ASYM_KILLS", "6"))
AT_A_TIME = 2
NUM_STEPS, EVERY = 200, 4
INSTANTS = ("start-up", "steps", "a save", "end")
CALLBACKS = ("asym_lightning.callbacks.AdapterCheckpoint", "lightning.pytorch.callbacks.ModelCheckpoint")


class Run:
    """The quickstart with dropout, in a folder of its own, with a checkpoint every few steps."""

    def __init__(self, folder: Path, callback: str) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        folder.mkdir()
        options = {"filename": "{step}", "monitor": None, "every_n_train_steps": EVERY, "save_top_k": 1}
        options |= {"dirpath": "checkpoints", "auto_insert_metric_name": True}
        config = {"trainer": {"callbacks": [{"class_path": callback, "init_args": options}]}}
        (folder / "callbacks.yaml").write_text(yaml.safe_dump(config))

    def start(self) -> subprocess.Popen:
        """Start it, or let it go on where it can."""
        command = [sys.executable, "-W", "ignore", "-m", "asym_lightning", "fit"]
        command += ["--config", str(ROOT / "configs/quickstart.yaml"), "--config", "callbacks.yaml"]
        command += ["--model.adapter.dropout", "0.1", "--trainer.enable_progress_bar", "false"]
        if whole := self.whole():
            command += ["--ckpt_path", str(max(whole, key=lambda path: path.stat().st_mtime_ns))]
        with (self.folder / "printed.txt").open("a") as printed:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, cwd=self.folder, stdout=printed, stderr=printed, env=environment)

    def whole(self) -> list[Path]:
        """What anybody would take for a checkpoint."""
        return [path for path in self.checkpoints.glob("*.ckpt") if not path.name.startswith(".")]

    def unfinished(self) -> list[Path]:
        return list(self.checkpoints.glob(".*"))

    def result(self) -> dict:
        """The adapter and the scores that a run leaves, and the state at its last step."""
        printed = (self.folder / "printed.txt").read_text()
        scores = dict(re.findall(r"^(test/\w+)\s+(\S+)$", printed, re.MULTILINE)[-2:])
        adapter = max(self.folder.glob("runs/*/*/adapter"), key=lambda path: path.stat().st_mtime_ns)
        last = torch.load(self.checkpoints / f"step={NUM_STEPS}.ckpt", weights_only=True)
        return {
            "scores": scores,
            "adapter": load_file(adapter / "adapter_model.safetensors"),
            "state": {name: value for name, value in last["state_dict"].items() if "_metrics" not in name},
            "optimizer": last["optimizer_states"],
            "schedule": last["lr_schedulers"],
        }


def kill(run: Run, process: subprocess.Popen, instant: str, chance: random.Random) -> str:
    """SIGKILL the process at such an instant; returns when that was."""

    def wait(condition) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.001)

    if instant == "start-up":
        time.sleep(chance.uniform(0.1, 8))
    else:
        after = {"steps": EVERY, "a save": EVERY, "end": NUM_STEPS}[instant]
        after = chance.randrange(EVERY, NUM_STEPS, EVERY) if instant != "end" else after
        wait(lambda: any(int(path.stem.removeprefix("step=")) >= after for path in run.whole()))
        if instant == "a save":
            wait(run.unfinished)
            time.sleep(chance.uniform(0, 0.005))
        else:
            time.sleep(chance.uniform(0, 1.0))
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), (run.folder / "printed.txt").read_text()
    steps = [int(path.stem.removeprefix("step=")) for path in run.whole()]
    return f"{instant}, newest checkpoint {max(steps, default='none')}, {len(run.unfinished())} unfinished"


def killed_and_resumed(folder: Path, number: int, expected: dict) -> tuple[str, list[str]]:
    """Kill once and resume; returns when that was, and what differs from the run that nobody killed."""
    run = Run(folder / str(number), CALLBACKS[number // len(INSTANTS) % 2])
    when = kill(run, run.start(), INSTANTS[number % len(INSTANTS)], random.Random(number))
    for path in run.whole():
        torch.load(path, weights_only=True)  # half a file is none
    assert run.start().wait() == 0, (run.folder / "printed.txt").read_text()
    left = [path.name for path in run.unfinished()]
    return when, [f"left behind: {left}"] * bool(left) + differences(run.result(), expected)


@pytest.mark.slow
def test_every_killed_run_ends_with_the_bits_of_one_that_nobody_killed(tmp_path):
    whole = Run(tmp_path / "whole", CALLBACKS[0])
    assert whole.start().wait() == 0, (whole.folder / "printed.txt").read_text()
    expected = whole.result()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = list(pool.map(lambda number: killed_and_resumed(tmp_path, number, expected), range(NUM_KILLS)))
    for number, (when, found) in enumerate(runs):
        print(f"{number:>3} {when}: {found or 'the same'}")
    print(f"{sum(not found for _, found in runs)} of {NUM_KILLS} the same")
    assert [found for _, found in runs if found] == []
