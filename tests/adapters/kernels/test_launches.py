"""How kernels are launched: by the table, and as was measured before."""

import json

import pytest
import torch

from asym_lightning.adapters.kernels import launches
from asym_lightning.adapters.kernels.launches import FITS, Launch, Shape, intensity, kept, launch_for, on_paper, tune

CARD = torch.device("cuda", 0)
SHAPE = Shape("project", 2, 16, 4096)


@pytest.fixture(autouse=True)
def card(tmp_path, monkeypatch):
    """A card by name alone, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB/HBM3")
    kept.cache_clear()
    yield
    kept.cache_clear()


@pytest.mark.parametrize("size, ranks", FITS)
@pytest.mark.parametrize("tokens", [1, 32, 4096])
def test_the_table_gives_the_launch_that_does_most_with_a_byte(size, ranks, tokens):
    shape = Shape("back", size, ranks, tokens)
    assert intensity(shape, on_paper(shape)) == max(intensity(shape, launch) for launch in FITS[size, ranks])


def test_few_tokens_take_no_more_rows_than_there_are():
    assert launch_for("project", 3, 16, 2, CARD).rows == launch_for("project", 16, 16, 2, CARD).rows == 16
    assert launch_for("project", 1000, 16, 2, CARD).rows == 64


def seconds(shape, launch):
    return abs(launch.rows - 16) + abs(launch.programs - 1024)


def test_what_was_fastest_is_kept_for_later_runs():
    assert launch_for("project", 4096, 16, 2, CARD) == Launch(64, 8)
    file = tune(CARD, [SHAPE], seconds)
    assert file.name == "NVIDIA_H100_80GB_HBM3.json"
    assert launch_for("project", 4096, 16, 2, CARD) == Launch(16, 4, 1024)
    assert launch_for("project", 8192, 16, 2, CARD) == launch_for("project", 4096, 16, 2, torch.device("cpu"))
    tune(CARD, [Shape("back", 2, 16, 4096)], seconds)  # beside what was tuned before
    assert launch_for("project", 4096, 16, 2, CARD) == Launch(16, 4, 1024)
    assert launch_for("back", 4096, 16, 2, CARD) == Launch(16, 4)


def test_what_another_triton_was_tuned_for_does_not_count():
    file = tune(CARD, [SHAPE], seconds)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"triton": "1.0"}))
    kept.cache_clear()
    assert launch_for("project", 4096, 16, 2, CARD) == Launch(64, 8)


@pytest.mark.parametrize("damage", ["{", "[]", '{"rows": 48}', '{"tokens": null, "extra": 1}'])
def test_a_damaged_file_is_named_and_the_table_used(damage):
    file = tune(CARD, [SHAPE], seconds)
    content = json.loads(file.read_text())
    if damage in ("{", "[]"):
        file.write_text(damage)
    else:
        content["launches"][0] |= json.loads(damage)
        file.write_text(json.dumps(content))
    kept.cache_clear()
    with pytest.warns(
        UserWarning, match=r"HBM3.json` is no file of launches \(.*\): kernels are launched by the table"
    ):
        assert launch_for("project", 4096, 16, 2, CARD) == Launch(64, 8)


def test_nothing_is_read_for_a_device_without_a_file(monkeypatch):
    monkeypatch.setattr(launches, "_triton_version", lambda: pytest.fail("not asked"))
    assert kept(CARD) == kept(torch.device("cpu")) == {}
