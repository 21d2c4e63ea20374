"""Every shipped task config is found, parsed, instantiated, trained for a step and tested, on tiny stand-ins."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from asym_lightning.cli import main
from tests.text_stand_ins import GLUE_FOLDERS, write_glue_task, write_tiny_bert

CONFIGS = Path(__file__).parents[1] / "configs"
GLUE = sorted((CONFIGS / "glue").glob("*.yaml"))
DOMAINBED = sorted((CONFIGS / "domainbed").glob("*.yaml"))
QUICK = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def options(*configs):
    return [option for config in configs for option in ("--config", str(config))]


def summary(capsys):
    """The last lines of a fit, by name."""
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.strip().splitlines()]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def test_all_configs_of_the_paper_are_there():
    assert {path.stem for path in GLUE} == set(GLUE_FOLDERS)
    assert {path.stem for path in DOMAINBED} == {"vlcs", "pacs", "officehome", "terra", "rotated_digits"}


@pytest.mark.parametrize("config", GLUE, ids=lambda path: path.stem)
def test_glue_config_trains_and_tests(tmp_path, capsys, config):
    task = config.stem
    backbone, folder = write_tiny_bert(tmp_path / "bert"), write_glue_task(tmp_path / "glue", task)
    stand_ins = ["--model.backbone", str(backbone), "--data.folder", str(folder), "--data.loader.batch_size", "4"]
    assert main(["fit", *options(config), *stand_ins, *QUICK, *QUIET]) == 0
    printed = summary(capsys)
    metric = {"cola": "matthews", "stsb": "pearson", "mnli": "mismatched/accuracy"}.get(task, "accuracy")
    assert f"test/{metric}" in printed
    assert printed["trained"].endswith(")") and "checkpoint" in printed and "adapter" in printed


def test_configs_overlay_one_another(tmp_path, capsys):
    base, code = CONFIGS / "glue/overlays/roberta_base.yaml", CONFIGS / "adapters/reference_code.yaml"
    with pytest.raises(SystemExit):
        main(["fit", *options(CONFIGS / "glue/rte.yaml", base, code), "--print_config"])
    resolved = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert resolved["backbone"] == "FacebookAI/roberta-base"
    assert resolved["adapter"]["targets"] == ["q", "v"]


def test_glue_model_is_tested_and_predicts_from_its_checkpoint(tmp_path, capsys):
    backbone, folder = write_tiny_bert(tmp_path / "bert"), write_glue_task(tmp_path / "glue", "rte")
    stand_ins = ["--model.backbone", str(backbone), "--data.folder", str(folder)]
    config = [*options(CONFIGS / "glue/rte.yaml"), *stand_ins, "--trainer.accelerator", "cpu", *QUIET]
    assert main(["fit", *config, *QUICK]) == 0
    printed = summary(capsys)
    assert main(["test", *config, "--ckpt_path", printed["checkpoint"], "--trainer.precision", "32-true"]) == 0
    loss = re.search(r"test/loss\D+([\d.]+)", capsys.readouterr().out)
    assert float(loss[1]) == pytest.approx(float(printed["test/loss"]), abs=1e-4)
    assert main(["predict", *config, "--ckpt_path", printed["checkpoint"]]) == 0
    (path,) = tmp_path.glob("runs/rte/**/predictions.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(i) for i in range(len(rows))]
    for row in rows:
        probabilities = {name: float(row[f"probability_{name}"]) for name in ("entailment", "not_entailment")}
        assert row["label"] == max(probabilities, key=probabilities.get)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("config", [c for c in DOMAINBED if c.stem != "rotated_digits"], ids=lambda path: path.stem)
def test_domainbed_config_trains_and_tests(tmp_path, capsys, config):
    from tests.image_stand_ins import write_environments

    content = yaml.safe_load(config.read_text())
    root = write_environments(tmp_path / "data", content["data"]["dataset"])
    model = ["--model.backbone", "vit_tiny_patch16_224", "--model.backbone_options.pretrained", "false"]
    model += ["--model.backbone_options.model_args", "{img_size: 32, depth: 1}"]
    data = ["--data.folder", str(root), "--data.image_size", "32", "--data.val_fraction", "0.25"]
    data += ["--data.loader.batch_size", "4", "--data.loader.num_workers", "0"]
    assert main(["fit", *options(config), *model, *data, *QUICK, *QUIET]) == 0
    printed = summary(capsys)
    for name in ("in_domain_accuracy", "ood_accuracy", "train_accuracy", "train_test_gap"):
        assert f"test/{name}" in printed
    train = content["data"]["train_environments"][0]
    assert f"test/{train}_test/accuracy" in printed
    assert content["model"]["num_classes"] == 10 or config.stem != "terra"


def test_rotated_digits_config_trains_and_tests(capsys):
    config = CONFIGS / "domainbed/rotated_digits.yaml"
    assert main(["fit", *options(config), "--trainer.max_steps", "30", *QUIET]) == 0
    printed = summary(capsys)
    assert {f"test/{angle}/accuracy" for angle in (0, 15, 30, 45, 60)} <= set(printed)
    mean = sum(float(printed[f"test/{angle}/accuracy"]) for angle in (0, 15, 30, 45, 60)) / 5
    assert float(printed["test/ood_accuracy"]) == pytest.approx(mean, abs=1e-4)
    gap = float(printed["test/train_accuracy"]) - float(printed["test/in_domain_accuracy"])
    assert float(printed["test/train_test_gap"]) == pytest.approx(gap, abs=2e-4)
