"""A disk that gets full, read-only or forbidden at points spread over all that a run writes.

ASYM_POINTS=20 pytest -m slow -s tests/cli/test_failing_disk.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUM_POINTS = int(os.environ.get("ASYM_POINTS", "4"))
COMPILER = shutil.which("cc")
LONGEST = 300


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", path, source, "-ldl"], check=True, timeout=120)
    return path


def faults(point: dict) -> list[str]:
    """What is wrong with the end of a run whose disk failed, and with the one after it."""
    found = list(point["damage"])
    lines = [line for line in point["failed"]["printed"].splitlines() if line.startswith("error: ")]
    if point["failed"]["code"] != 1 or len(lines) != 1:
        return [*found, f"code {point['failed']['code']}: {point['failed']['printed']}"]
    sentence = lines[0]
    found += [f"{len(sentence)} characters: {sentence}"] * (len(sentence) > LONGEST)
    found += [f"no folder and no remedy: {sentence}"] * ("` can't be written to: " not in sentence)
    found += [f"a temporary file: {sentence}"] * (".saving" in sentence or "/tmp/" in sentence.split("`")[2])
    found += [f"the next run: {point['again']}"] * (not point["is_same"])
    return found


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="it takes a compiler, and Linux")
@pytest.mark.parametrize("kind", ["ENOSPC", "EROFS", "EACCES"])
def test_a_disk_that_fails_loses_nothing_and_the_next_run_completes(kind, library, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.cli.failing_disk", tmp_path, str(NUM_POINTS), kind]
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        points = []
        for line in process.stdout or ():
            points.append(json.loads(line))
            if len(points) > 1:
                print(f"call {points[-1]['call']}: {faults(points[-1]) or points[-1]['failed']['printed']}", flush=True)
    assert points[0]["code"] == 0, points[0]["printed"]
    assert len(points) == NUM_POINTS + 1
    print(f"{kind}: {points[0]['calls']} calls, {NUM_POINTS} points")
    assert [found for point in points[1:] if (found := faults(point))] == []
