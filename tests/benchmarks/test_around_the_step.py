"""What surrounds a step, measured small: memory in numbers of rows that differ a hundredfold."""

import subprocess
import sys

import pytest

from benchmarks.around_the_step import made_rows


def test_rows_are_made_in_parts_with_all_their_fields():
    (part,) = made_rows(5)
    assert len(part) == 5 and len(part[4]["input_ids"]) == 20 and part[4]["labels"] in (0, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    held = {}
    for count in (20_000, 2_000_000):
        path = str(tmp_path / f"{count}.safetensors")
        for what in ("write", "read"):
            command = [sys.executable, "-m", "benchmarks.around_the_step", f"--{what}", path, str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            held[what, count] = float(done.stdout.split()[0])
    assert held["write", 2_000_000] < 60  # MB, of 192 on the disk
    assert held["read", 2_000_000] < 2 * 13  # order and lengths, 4 bytes each, and the batches' numbers
