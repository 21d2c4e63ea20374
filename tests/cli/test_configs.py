"""Configs that come with the package, listed, shown and copied."""

import pytest
import yaml

from asym_lightning.cli import main
from asym_lightning.cli.config_files import RECIPES, recipes


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_list_names_each_with_what_it_is(capsys, arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["configs", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    beginnings = [line for line in lines if not line.startswith(" ")]
    assert [line.split()[0] for line in beginnings] == list(recipes())
    assert all(len(line.split()) > 3 for line in beginnings) and max(map(len, lines)) <= 100


def test_a_long_sentence_is_wrapped_and_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["configs"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "quickstart Quickstart: adapt a tiny ViT, pretrained on upright handwritten digits, to digits turned" in text
    assert "..." not in text


def test_show_prints_the_file(capsys):
    assert main(["configs", "show", "glue/rte"]) == 0
    assert capsys.readouterr().out == (RECIPES / "glue" / "rte.yaml").read_text()


def test_copy_writes_it_below_configs_or_where_it_is_told_to(capsys, tmp_path):
    assert main(["configs", "copy", "quickstart"]) == 0
    assert main(["configs", "copy", "adapters/lora_r8", "mine.yaml"]) == 0
    assert capsys.readouterr().out == "config  configs/quickstart.yaml\nconfig  mine.yaml\n"
    assert yaml.safe_load((tmp_path / "configs" / "quickstart.yaml").read_text())["model"]["num_classes"] == 10
    assert (tmp_path / "mine.yaml").read_text() == (RECIPES / "adapters" / "lora_r8.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show"], "`configs show` needs the name of a config"),
        (["show", "glue/rtt"], "there is no config 'glue/rtt': did you mean glue/rte"),
        (["sohw", "glue/rte"], "sohw"),
        (["copy", "quickstart", "there.yaml"], "`there.yaml` exists"),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(capsys, tmp_path, arguments, sentence):
    (tmp_path / "there.yaml").write_text("# mine")
    assert main(["configs", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "# mine"


def test_fit_takes_recipes_by_name(tmp_path):
    options = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--test_after_fit=false"]
    assert main(["fit", "--config", "quickstart", "--config", "adapters/b_only_r16", *options]) == 0
    recorded = yaml.safe_load((tmp_path / "runs" / "quickstart" / "version_0" / "config.yaml").read_text())
    assert recorded["model"]["init_args"]["adapter"]["rank"] == 16
