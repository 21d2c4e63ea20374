"""Config files by their paths."""

from pathlib import Path

import pytest

from asym_lightning.cli.config_files import RECIPES, config_path, merged_config, recipes, with_config_paths


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "configs" / "adapters").mkdir(parents=True)
    (tmp_path / "configs" / "adapters" / "b_only_r8.yaml").write_text("model: {adapter: {rank: 8}}")
    (tmp_path / "mine.yaml").write_text("model: {class_path: ImageClassifier, num_classes: 3}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("b_only_r8", "did you mean configs/adapters/b_only_r8.yaml or adapters/b_only_r8"),
        ("lora_r8.yaml", "did you mean adapters/lora_r8"),
        ("configs/adapters/b_only_r9.yaml", "did you mean configs/adapters/b_only_r8.yaml"),
        ("glue/rtt", "did you mean glue/rte"),
        ("mien.yaml", "did you mean mine.yaml"),
    ],
)
def test_missing_config_is_named_with_the_nearest(path, hint):
    with pytest.raises(FileNotFoundError, match=f"there is no config '{path}': {hint}"):
        config_path(path)


def test_configs_are_laid_over_one_another_in_the_long_form():
    merged = merged_config(["mine.yaml", "configs/adapters/b_only_r8.yaml"])
    arguments = {"num_classes": 3, "adapter": {"rank": 8}}
    assert merged == {"model": {"class_path": "ImageClassifier", "init_args": arguments}}


def test_empty_config_says_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert merged_config(["empty.yaml"]) == {}


@pytest.mark.parametrize("name", ["glue/rte", "glue/rte.yaml", "configs/glue/rte.yaml"])
def test_recipe_is_found_by_name_outside_a_clone(name):
    assert config_path(name) == RECIPES / "glue" / "rte.yaml"


def test_own_file_comes_before_a_recipe_of_that_name():
    assert config_path("configs/adapters/b_only_r8.yaml") == Path("configs/adapters/b_only_r8.yaml")


def test_recipes_begin_with_tasks():
    names = list(recipes())
    assert names.index("quickstart") < names.index("adapters/lora_r8")
    assert len(names) == len(list(RECIPES.rglob("*.yaml")))


def test_names_become_paths_and_texts_stay():
    text = "model: {num_classes: 3}"
    given = ["fit", "--config", "quickstart", "-c=glue/rte", "--config", text, "--trainer.max_epochs", "quickstart"]
    quickstart, rte = str(RECIPES / "quickstart.yaml"), str(RECIPES / "glue" / "rte.yaml")
    assert with_config_paths(given) == [
        "fit", "--config", quickstart, f"-c={rte}", "--config", text, "--trainer.max_epochs", "quickstart",
    ]  # fmt: skip
