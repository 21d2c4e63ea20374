"""What is installed, what the machine has, and whether a run works."""

import pytest

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
