"""A run of one of the settings, in a folder of its own: started, looked at, timed."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from asym_lightning.core.files import SUFFIX, read_json
from asym_lightning.core.norms_file import read_norms
from asym_lightning.core.run_files import ADAPTER, NORMS, RECORD
from tests.forked import start
from tests.lifecycle.kill_programs import EVERY, NUM_STEPS, Setting

MARK = "ASYM_KILLED_RUN"
"""Variable by which processes are found that a run has started."""
PATIENCE = 300.0
"""Seconds in which processes that lost another one have to end."""


class Run:
    """A run in a folder of its own.

    Args:
        setting: What runs.
        folder: Where; it is made.
        writer: Number of what writes its checkpoints.
        compiles: Whether it has to compile its kernels first.
    """

    def __init__(self, setting: Setting, folder: Path, *, writer: int = 0, compiles: bool = False) -> None:
        self.setting, self.folder, self.writer = setting, folder, writer
        self.printed = folder / "printed.txt"
        self.environment = {MARK: str(folder), **({"XDG_CACHE_HOME": str(folder / "cache")} if compiles else {})}
        folder.mkdir()

    def start(self) -> list[BaseProcess]:
        """Start it, or let it go on where it can."""
        newest = max(self.whole(), key=step_of, default=None)
        return start(
            self.setting.program, self.folder, self.writer, newest, printed=self.printed,
            num_processes=self.setting.num_processes, environment=self.environment,
        )  # fmt: skip

    def complete(self) -> None:
        """Start it and let it end."""
        codes = self.ended(self.start())
        assert set(codes) == {0}, f"{codes}: {self.printed.read_text()}"

    def whole(self) -> list[Path]:
        """What anybody would take for a checkpoint."""
        return list(self.folder.glob("runs/*/*/checkpoints/*.ckpt"))

    def unfinished(self, below: str = ".") -> list[Path]:
        return list((self.folder / below).glob(f"**/.*{SUFFIX}"))

    @property
    def last(self) -> Path:
        """The checkpoint of the last step, in the folder that the run went on in."""
        (found,) = (path for path in self.whole() if step_of(path) == NUM_STEPS)
        return found

    def reached(self, step: int) -> bool:
        return any(step_of(path) >= step for path in self.whole())

    def ended(self, processes: list[BaseProcess]) -> list[int | None]:
        """The exit codes of processes, once they and all that they have started are gone."""
        until = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(until - time.monotonic(), 0))
        while (left := self.living(processes)) and time.monotonic() < until:
            time.sleep(0.05)
        codes = [process.exitcode for process in processes]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"{left} outlived their parent"
        return codes

    def living(self, processes: list[BaseProcess]) -> list[int]:
        """What is left of processes, and of what they have started."""
        found = [process.pid for process in processes if process.is_alive() and process.pid]
        mark = f"{MARK}={self.folder}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def result(self) -> dict[str, Any]:
        """The state at the last step, and what stands in the run's files beside times."""
        state = torch.load(self.last, weights_only=True)
        folder = self.last.parents[1]
        record = read_json(folder / RECORD)
        # Those of a training epoch say what one process saw of it.
        metrics = {name: value for name, value in record["metrics"].items() if not name.startswith("train/")}
        return {
            "state": {name: value for name, value in state["state_dict"].items() if "_metrics" not in name},
            "optimizer": state["optimizer_states"],
            "schedule": state["lr_schedulers"],
            "record": {"metrics": metrics, **{name: record[name] for name in ("ranks", "trained", "steps")}},
            "adapter": load_file(folder / ADAPTER / "adapter_model.safetensors"),
            "norms": list(read_norms(folder / NORMS)) if (folder / NORMS).exists() else [],
        }


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step="))


def timed(run: Run) -> dict[str, float]:
    """Let a run end; returns the seconds until its first checkpoint, of a step, and after its last checkpoint."""
    began = time.monotonic()
    processes = run.start()
    seen = {}
    for step in (EVERY, NUM_STEPS):
        while processes[0].is_alive() and not run.reached(step):
            time.sleep(0.02)
        seen[step] = time.monotonic() - began
    codes = run.ended(processes)
    assert set(codes) == {0}, f"{codes}: {run.printed.read_text()}"
    step = (seen[NUM_STEPS] - seen[EVERY]) / (NUM_STEPS - EVERY)
    return {"start-up": seen[EVERY], "step": step, "end": time.monotonic() - began - seen[NUM_STEPS]}
