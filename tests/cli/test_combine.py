"""`asym-lightning combine`, from directories to a directory."""

import pytest
import torch

from asym_lightning.adapters import read_adapter
from asym_lightning.adapters.arithmetic import interpolation
from asym_lightning.cli import EXIT_FAILURE, main
from asym_lightning.lifecycle.label_names import save_label_names, saved_label_names
from tests.adapters.arithmetic.adapters import plain, written


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [written(tmp_path, number, model=plain(), targets=["0"], heads=["2"]) for number in range(2)]


def test_writes_what_the_functions_give(adapters, tmp_path, capsys):
    assert main(["combine", "0", "1", "--weights", "0.75", "0.25", "--output", "out"]) == 0
    assert capsys.readouterr().out == "combined  out  (mean of 2)\n"
    found, expected = read_adapter("out"), interpolation(*adapters, 0.25)
    assert all(torch.equal(found.factors[name], expected.factors[name]) for name in expected.factors)
    assert all(torch.equal(found.others[name], expected.others[name]) for name in expected.others)


def test_negative_weights_and_the_heads_of_one(adapters, capsys):
    assert (
        main(["combine", "0", "1", "--method", "sum", "--weights", "1", "-1", "--heads-of", "1", "--output", "o"]) == 0
    )
    assert torch.equal(read_adapter("o").others["2.weight"], adapters[1].others["2.weight"])


def test_nothing_is_written_of_what_does_not_go_together(adapters, tmp_path, capsys):
    written(tmp_path, 2, model=plain(), targets=["0"], heads=["2"], seed=1)
    assert main(["combine", "0", "2", "--output", "out"]) == EXIT_FAILURE
    assert "`seed` is 0 and 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["combine", "0", "1", "--heads-of", "2", "--output", "out"]) == EXIT_FAILURE
    assert "`--heads-of` must be one of 0, 1" in capsys.readouterr().err
    assert main(["combine", "0", "nowhere", "--output", "out"]) == EXIT_FAILURE
    assert "holds no adapter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["combine", "0", "2", "--join", "concatenate", "--output", "out"]) == 0
    assert read_adapter("out").peft_config["r"] == 6


def test_heads_that_tell_other_classes_apart_are_not_combined(adapters, tmp_path, capsys):
    for number, name in enumerate(("bee", "cat")):
        save_label_names(["ant", name], tmp_path / str(number))
    assert main(["combine", "0", "1", "--output", "out"]) == EXIT_FAILURE
    assert "`0` and `1` tell other classes apart" in capsys.readouterr().err
    assert main(["combine", "0", "1", "--heads-of", "1", "--output", "out"]) == 0
    assert saved_label_names("out") == ["ant", "cat"]
