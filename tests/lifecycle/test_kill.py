"""Runs that are killed at random instants and resumed from their newest checkpoint, as a user would.

    ASYM_KILLS=50 pytest -m slow -s tests/lifecycle/test_kill.py

says of each setting how many of 50 ended with the bits of a run that nobody killed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asym_lightning.core.files import SUFFIX, read_json
from asym_lightning.core.norms_file import read_norms
from asym_lightning.core.run_files import ADAPTER, NORMS, RECORD
from tests.forked import start
from tests.lifecycle.kill_programs import EVERY, NUM_STEPS, SETTINGS, WRITERS, Setting
from tests.lifecycle.runs import differences

NUM_KILLS = int(os.environ.get("ASYM_KILLS", "4"))
AT_A_TIME = 2
INSTANTS = ("start-up", "steps", "a save", "end")
MARK = "ASYM_KILLED_RUN"
"""Variable by which processes are found that a run has started."""
PATIENCE = 300.0
"""Seconds in which processes that lost another one have to end."""


class Run:
    """A run in a folder of its own."""

    def __init__(self, setting: Setting, folder: Path, number: int) -> None:
        self.setting, self.folder = setting, folder
        self.printed = folder / "printed.txt"
        self.writer = number // len(INSTANTS) % len(WRITERS)
        # In every second one that is killed while it starts the compiler is at work.
        compiles = number % (2 * len(INSTANTS)) == 0
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


def kill(run: Run, instant: str, chance: random.Random, timing: dict[str, float]) -> str:
    """SIGKILL a run at such an instant, or one of its processes; returns when that was."""
    processes = run.start()

    def wait(condition: Callable[[], Any], every: float = 0.02) -> None:
        while all(process.is_alive() for process in processes) and not condition():
            time.sleep(every)

    if instant == "start-up":
        time.sleep(chance.uniform(0, timing["start-up"]))
    elif instant == "end":
        wait(lambda: run.reached(NUM_STEPS))
        time.sleep(chance.uniform(0, timing["end"]))
    else:
        step = chance.randrange(EVERY, NUM_STEPS, EVERY)
        wait(lambda: run.reached(step))
        if instant == "a save":
            wait(run.unfinished, every=0.001)
        time.sleep(chance.uniform(0, 0.005 if instant == "a save" else timing["step"] * EVERY))
    victims = chance.choice([processes, *([process] for process in processes)])
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim.pid or 0, signal.SIGKILL)
    codes = run.ended(processes)
    assert all(process.exitcode in (0, -signal.SIGKILL) for process in victims), run.printed.read_text()
    newest = max(map(step_of, run.whole()), default="none")
    return f"{instant}, exit codes {codes}, newest checkpoint {newest}, {len(run.unfinished())} unfinished"


def killed_and_resumed(
    setting: Setting, folder: Path, number: int, expected: dict[str, Any], timing: dict[str, float]
) -> tuple[str, list[str]]:
    """Kill once and resume; returns when that was, and what differs from the run that nobody killed."""
    run = Run(setting, folder / str(number), number)
    when = kill(run, INSTANTS[number % len(INSTANTS)], random.Random(number), timing)
    for path in run.whole():
        torch.load(path, weights_only=True)  # half a file is none
    run.complete()
    left = [*run.unfinished(str(run.last.parents[1])), *run.unfinished("cache")]
    return when, [f"left behind: {path}" for path in left] + differences(run.result(), expected)


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


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_every_killed_run_ends_with_the_bits_of_one_that_nobody_killed(setting, tmp_path):
    whole = Run(setting, tmp_path / "whole", number=1)
    timing = timed(whole)
    expected = whole.result()
    print(f"\nseconds: {timing}")

    def outcome(number: int) -> tuple[str, list[str]]:
        try:
            return killed_and_resumed(setting, tmp_path, number, expected, timing)
        except AssertionError as error:  # and go on with the others
            return "in vain", [str(error)]

    bad = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for number, (when, found) in enumerate(pool.map(outcome, range(NUM_KILLS))):
            print(f"{number:>3} {when}: {found or 'the same'}", flush=True)
            bad += [found] if found else []
    print(f"{NUM_KILLS - len(bad)} of {NUM_KILLS} the same")
    assert bad == []
