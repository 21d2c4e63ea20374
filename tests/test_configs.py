"""Every shipped config parses, alone or on what it is an overlay of."""

from pathlib import Path

import pytest

from asym_lightning.adapters import AdapterConfig
from asym_lightning.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
QUICKSTART = CONFIGS / "quickstart.yaml"
ARMS = sorted((CONFIGS / "adapters").glob("*.yaml"))
OVERLAYS = ("adapters", "strategies", "overlays")  # folders of configs that go on top of another
TASKS = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name not in OVERLAYS]

NUM_TRAINED = {
    "b_only_r8": 14_794,
    "b_only_r16": 28_618,
    "b_only_r8_chosen": 14_794,
    "a_only_r8": 5_578,
    "lora_r8": 19_402,
    "svd_b_only": 14_794,
    "head_only": 970,
    "full": 674_410,
}


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def resolved(capsys, *configs):
    options = [option for config in configs for option in ("--config", str(config))]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *options, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("config", TASKS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_config_of_a_task_is_complete(capsys, config):
    assert "class_path" in resolved(capsys, config)


@pytest.mark.parametrize("arm", [path for path in ARMS if path.stem in NUM_TRAINED], ids=lambda path: path.stem)
def test_arm_wins_over_an_arm_before_it(capsys, arm):
    other = CONFIGS / "adapters" / "b_only_r16.yaml"
    assert resolved(capsys, QUICKSTART, other, arm) == resolved(capsys, QUICKSTART, arm)


@pytest.mark.parametrize("name", NUM_TRAINED)
def test_arm_trains_what_it_should(capsys, name):
    options = ["--config", str(QUICKSTART), "--config", str(CONFIGS / "adapters" / f"{name}.yaml")]
    one_step = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--test_after_fit", "false"]
    assert main(["fit", *options, *one_step, "--trainer.enable_progress_bar", "false"]) == 0
    assert f"{NUM_TRAINED[name]:,} of " in capsys.readouterr().out


def test_quickstart_says_its_defaults_out_loud():
    assert AdapterConfig().scheme in QUICKSTART.read_text()


def test_quickstart_reaches_the_promised_accuracy(capsys):
    assert main(["fit", "--config", str(QUICKSTART), "--trainer.enable_progress_bar", "false"]) == 0
    summary = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.strip().splitlines()[-8:])
    assert float(summary["test/accuracy"]) >= 0.80
