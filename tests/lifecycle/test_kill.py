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
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lifecycle.kill_programs import EVERY, NUM_STEPS, SETTINGS, WRITERS, Setting
from tests.lifecycle.killed_run import Run, step_of, timed
from tests.lifecycle.runs import differences

NUM_KILLS = int(os.environ.get("ASYM_KILLS", "4"))
AT_A_TIME = 2
INSTANTS = ("start-up", "steps", "a save", "end")


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
    # In every second one that is killed while it starts the compiler is at work.
    run = Run(
        setting, folder / str(number), writer=number // len(INSTANTS) % len(WRITERS),
        compiles=number % (2 * len(INSTANTS)) == 0,
    )  # fmt: skip
    when = kill(run, INSTANTS[number % len(INSTANTS)], random.Random(number), timing)
    for path in run.whole():
        torch.load(path, weights_only=True)  # half a file is none
    run.complete()
    left = [*run.unfinished(str(run.last.parents[1])), *run.unfinished("cache")]
    return when, [f"left behind: {path}" for path in left] + differences(run.result(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_every_killed_run_ends_with_the_bits_of_one_that_nobody_killed(setting, tmp_path):
    whole = Run(setting, tmp_path / "whole")
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
