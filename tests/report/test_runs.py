import json
import math

import pytest
import yaml

from asym_lightning.core.run_files import read_curve
from asym_lightning.report.runs import read_runs


def test_reads_a_run_of_a_sweep(write_run, tmp_path):
    write_run(seed=3, test=0.9)
    found = read_runs([tmp_path])
    (run,) = found.runs
    assert (run.task, run.arm, run.learning_rate, run.seed) == ("digits", "b_only", 0.01, 3)
    assert (run.metric, run.mode, run.validation, run.test) == ("accuracy", "max", pytest.approx(0.89), 0.9)
    assert read_curve(run.directory, "val/accuracy") == [(9, 0.5), (19, 0.7)]
    assert read_curve(run.directory, "val/f1") == []
    assert not found.notes


def test_a_plain_fit_is_named_by_its_config(write_run, tmp_path):
    write_run(outcome=False, seed=4)
    (run,) = read_runs([tmp_path]).runs
    assert (run.task, run.arm, run.seed, run.learning_rate) == ("Digits", "hB_zero_A_rand_r8", 4, 0.01)


def test_runs_come_in_the_order_of_their_numbers(write_run, tmp_path):
    for seed in (10, 9, 1):
        write_run(seed=seed)
    assert [run.seed for run in read_runs([tmp_path]).runs] == [1, 9, 10]


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ({"record": False}, "is incomplete and is left out: it lacks record.json"),
        ({"status": "failed"}, "failed and is left out: `rank` is too large."),
        ({"test": math.nan}, "diverged"),
        ({"test": None, "validation": 0.5}, "has no test/accuracy and is left out"),
    ],
)
def test_a_run_that_cannot_be_used_is_noted(write_run, tmp_path, bad, note):
    write_run(seed=0)
    write_run(seed=1, **bad)
    found = read_runs([tmp_path])
    assert [run.seed for run in found.runs] == [0]
    (said,) = found.notes
    assert note in said
    assert "seed_1" in said


def test_a_repeated_seed_is_left_out(write_run, tmp_path):
    write_run(seed=0, test=0.8)
    write_run(seed=0, test=0.9, name="digits/copy")
    found = read_runs([tmp_path])
    assert len(found.runs) == 1
    assert "repeats seed 0 of" in found.notes[0]


def test_a_directory_named_twice_counts_once(write_run, tmp_path):
    directory = write_run()
    assert len(read_runs([tmp_path, directory]).runs) == 1


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"backbone": "vit_small"}, "model.init_args.backbone vit_small instead of vit_digits"),
        ({"rank": 16}, "model.init_args.adapter.rank 16 instead of 8"),
    ],
)
def test_runs_of_other_settings_are_not_averaged(write_run, tmp_path, other, note):
    for seed in (0, 1):
        write_run(seed=seed)
    write_run(seed=2, **other)
    found = read_runs([tmp_path])
    assert [run.seed for run in found.runs] == [0, 1]
    assert note in found.notes[0]


def test_a_directory_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        read_runs([tmp_path / "missing"])


def write_evaluation(directory, config, record=None):
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    if record is not None:
        (directory / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize("option", ["verbose", "return_predictions"])
def test_folders_of_other_commands_are_no_runs_and_not_incomplete(write_run, tmp_path, option):
    write_run()
    write_evaluation(tmp_path / "evaluated", {"model": {"class_path": "M"}, option: True})
    write_evaluation(tmp_path / "tested", {"verbose": True}, {"command": "test", "checkpoint": None, "metrics": {}})
    found = read_runs([tmp_path])
    assert len(found.runs) == 1 and not found.notes


def untested(write_run, **options):
    """A fit without a test; returns its best checkpoint."""
    directory = write_run(test=None, validation=0.5, **options)
    record = json.loads((directory / "record.json").read_text())
    checkpoint = str(directory / "best.ckpt")
    (directory / "record.json").write_text(json.dumps({**record, "command": "fit", "checkpoint": checkpoint}))
    return checkpoint


def test_a_test_of_the_best_checkpoint_counts_for_its_fit(write_run, tmp_path):
    checkpoint = untested(write_run)
    record = {"command": "test", "checkpoint": checkpoint, "metrics": {"test/accuracy": 0.7}}
    write_evaluation(tmp_path / "tested", {"verbose": True}, record)
    found = read_runs([tmp_path])
    (run,) = found.runs
    assert (run.test, run.validation) == (0.7, 0.5) and not found.notes


def test_a_test_of_another_checkpoint_does_not_count(write_run, tmp_path):
    checkpoint = untested(write_run)
    record = {"command": "test", "checkpoint": f"{checkpoint}.other", "metrics": {"test/accuracy": 0.7}}
    write_evaluation(tmp_path / "tested", {"verbose": True}, record)
    found = read_runs([tmp_path])
    assert not found.runs
    assert "or `test` its best checkpoint" in found.notes[0]
