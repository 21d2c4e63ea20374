"""A killed and resumed run equals an uninterrupted one, to the bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, load_adapters
from asym_lightning.core.norms_file import read_norms
from tests.callbacks.foreign import build_net

PROGRAM = Path(__file__).with_name("resumed_run.py")
NUM_STEPS = 20


def run(folder: Path, *options: str) -> int:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(folder) == 0
    return folder


def assert_equal(found, expected, where="") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_equal(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (f, e) in enumerate(zip(found, expected, strict=True)):
            assert_equal(f, e, f"{where}/{i}")
    else:
        assert found == expected, where


# Saves come at every second step, and each writes two files. An epoch has 5 steps, so most of them are in mid-epoch;
# the rank changes after steps 3, 9 and 15, and A is frozen after step 5.
@pytest.mark.parametrize(
    "kill",
    [
        ("--kill-at-step", "7"),
        ("--kill-in-save", "11"),
        pytest.param(("--kill-at-step", "4"), marks=pytest.mark.slow),
        pytest.param(("--kill-at-step", "10"), marks=pytest.mark.slow),
        pytest.param(("--kill-in-save", "4"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_killed_run_resumes_to_the_same_weights_optimizer_state_and_metrics(kill, uninterrupted, tmp_path):
    assert run(tmp_path, *kill) == -signal.SIGKILL
    whole = list((tmp_path / "checkpoints").glob("*.ckpt"))
    assert whole
    for path in whole:
        torch.load(path, weights_only=True)
        net = build_net()
        inject_adapters(net, AdapterConfig(rank=4, max_rank=6, targets=["first", "second"], scheme="hB_zero_hA_rand"))
        load_adapters(net, path.with_suffix(".adapter"))
    assert run(tmp_path, "--resume") == 0
    found, expected = (torch.load(f / "end.pt", weights_only=True) for f in (tmp_path, uninterrupted))
    losses = expected.pop("losses")
    resumed = found.pop("losses")
    assert 0 < len(resumed) < len(losses)
    assert resumed == losses[-len(resumed) :]
    assert_equal(found, expected)
    rows, expected_rows = (list(read_norms(f / "log" / "version_0" / "b_norms.csv")) for f in (tmp_path, uninterrupted))
    assert rows == expected_rows
    leftovers = [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".")]
    assert leftovers == []


def test_the_run_did_what_it_was_to_do(uninterrupted):
    """Or else the comparison above would compare nothing."""
    end = torch.load(uninterrupted / "end.pt", weights_only=True)
    assert len(end["losses"]) == NUM_STEPS and end["losses"][-1] < end["losses"][0]
    net = build_net()
    load_adapters(net, uninterrupted / "checkpoints" / "last.adapter")
    assert {adapter.rank for adapter in adapters_by_name(net).values()} == {3}
    assert len({row["step"] for row in read_norms(uninterrupted / "log" / "version_0" / "b_norms.csv")}) == 10
