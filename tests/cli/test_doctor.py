"""What is installed, what the machine has, and whether a run works."""

import json

import pytest
import torch

from asym_lightning.adapters.kernels.launches import FITS, SHAPES
from asym_lightning.cli import doctor, main
from asym_lightning.core.extras import EXTRAS


def test_doctor_says_what_there_is_and_makes_two_steps(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    starts = [line.split("  ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert starts == ["versions", "extras", "devices", "memory", "kernels", "program", "two steps"]
    assert "asym-lightning 0.1.0, Python 3." in out and "[vision] timm " in out
    assert out.endswith("of the quickstart work\n")
    assert list(tmp_path.iterdir()) == []


def test_tuning_is_refused_without_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["doctor", "--tune"]) == 2
    assert "`--tune` times kernels on a GPU, and there is none." in capsys.readouterr().err


def test_tuning_times_every_shape_on_every_gpu_and_keeps_the_fastest(monkeypatch, tmp_path):
    triton_kernels = pytest.importorskip("asym_lightning.adapters.kernels.dropout_triton")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(triton_kernels, "seconds", lambda shape, launch, device: -launch.rows)
    lines = list(doctor.launches())
    files = [tmp_path / "asym-lightning" / "launches" / f"card_{index}.json" for index in (0, 1)]
    assert lines == [
        f"{len(SHAPES)} shapes timed on card {index}, the fastest launches kept in {file}"
        for index, file in enumerate(files)
    ]
    kept = json.loads(files[1].read_text())["launches"]
    assert len(kept) == len(SHAPES)
    assert all(entry["rows"] == max(fit.rows for fit in FITS[entry["size"], entry["ranks"]]) for entry in kept)


def test_two_steps_that_fail_are_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "TWO_STEPS", (*doctor.TWO_STEPS, "--model.adapter.rank=9999"))
    assert main(["doctor"]) == 1
    output = capsys.readouterr()
    assert "rank" in output.err and "work" not in output.out.splitlines()[-1]


def test_extra_that_lacks_a_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(EXTRAS, "no_such_package", "vision")
    line = next(line for line in doctor.extras() if line.startswith("[vision]"))
    assert line.endswith("; no no_such_package: pip install 'asym-lightning[vision]'")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/usr/bin/python\nfrom asym_lightning.cli import main\n", "of this package"),
        ("#!/usr/bin/python\nfrom lightning_sdk.cli import main\n", "use `asym-lightning`, the same program"),
        (None, "`python -m asym_lightning` always works"),
    ],
)
def test_program_of_another_package_is_told(tmp_path, monkeypatch, script, said):
    if script:
        path = tmp_path / "lightning"
        path.write_text(script)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [line] = doctor.program()
    assert said in line
