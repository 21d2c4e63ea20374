import math
from pathlib import Path

import pytest
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters, save_adapters
from asym_lightning.cli import main

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def save(directory, **options):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 8))  # the second as narrow as a grouped-query v
    inject_adapters(model, AdapterConfig("hB_he_A_rand", rank=4, targets=["0", "1"]))
    save_adapters(model, directory, **options)
    return str(directory)


def test_from_an_adapter_directory(tmp_path, capsys):
    assert main(["bounds", save(tmp_path), "--num-samples", "1000", "--bits", "16"]) == 0
    printed = capsys.readouterr().out
    assert "| 1 | 8 x 16 | 4 | 32 | 64 | 96 |" in printed
    assert "| total | | | 96 | 128 | 224 |" in printed
    bound = math.sqrt(2 * 16 * math.log(2) * 96 / 1000)
    assert f"| bound | | | {bound:.4g} |" in printed
    assert "B-only may have 2.33 times the rank of both trained: 4 -> 9" in printed
    assert "note           1 allows at most rank 8" in printed


def test_from_a_config_with_a_shared_A(capsys):
    assert main(["bounds", "--config", str(QUICKSTART), "--model.adapter.rank=4", "--num-samples=500"]) == 0
    printed = capsys.readouterr().out
    # Six layers of 96: one A for q, k and v.
    assert f"| total | | | {6 * 3 * 96 * 4:,} | {6 * 96 * 4:,} | {6 * 4 * 96 * 4:,} |" in printed
    assert "1.33 times" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-samples", "10"], "either an adapter directory or `--config`"),
        (["compact", "--num-samples", "10"], "leaves out A of 0, so its d_in is not known"),
        (["full", "--num-samples", "0"], "`--num-samples` must be at least 1, not 0"),
        (["missing", "--num-samples", "10"], "holds no adapter"),
        (["--config", str(QUICKSTART), "--model.adapter=null", "--num-samples=10"], "a model without adapters"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    save("compact", include_frozen=False)
    save("full")
    assert main(["bounds", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
