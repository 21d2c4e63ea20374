import pytest

from asym_lightning.core.run_files import (
    CONFIG,
    METRICS,
    OUTCOME,
    RECORD,
    find_checkpoints,
    read_config,
    read_curve,
    read_facts,
)


def test_config_is_read_and_a_directory_without_one_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run directory: it has no config\.yaml"):
        read_config(tmp_path)
    (tmp_path / CONFIG).write_text("seed_everything: 3\n")
    assert read_config(tmp_path) == {"seed_everything": 3}


def test_facts_of_a_run_that_was_killed_are_none(tmp_path):
    (tmp_path / OUTCOME).write_text('{"status": "finished"}')
    (tmp_path / RECORD).write_text('{"metrics": ')
    assert read_facts(tmp_path, OUTCOME) == {"status": "finished"}
    assert read_facts(tmp_path, RECORD) == {}
    assert read_facts(tmp_path / "none", RECORD) == {}


def test_curve_has_the_steps_at_which_the_metric_was_logged(tmp_path):
    assert read_curve(tmp_path, "val/loss") == []
    (tmp_path / METRICS).write_text("epoch,step,train/loss,val/loss\n0,1,2.5,\n0,2,,0.5\n1,4,,0.25\n")
    assert read_curve(tmp_path, "val/loss") == [(2.0, 0.5), (4.0, 0.25)]
    assert read_curve(tmp_path, "val/accuracy") == []


def test_checkpoints_are_found_below_and_half_written_ones_are_none(tmp_path):
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "checkpoints/.best.ckpt.0a1b2c3d.saving", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_checkpoints(tmp_path) == [tmp_path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
