"""Config files by their paths."""

import pytest

from asym_lightning.cli.config_files import check_config_file, merged_config


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "configs" / "adapters").mkdir(parents=True)
    (tmp_path / "configs" / "adapters" / "b_only_r8.yaml").write_text("model: {adapter: {rank: 8}}")
    (tmp_path / "mine.yaml").write_text("model: {class_path: ImageClassifier, num_classes: 3}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("b_only_r8", "did you mean configs/adapters/b_only_r8.yaml"),
        ("adapters/b_only_r8.yaml", "did you mean configs/adapters/b_only_r8.yaml"),
        ("configs/adapters/b_only_r9.yaml", "did you mean configs/adapters/b_only_r8.yaml"),
        ("mien.yaml", "did you mean mine.yaml"),
    ],
)
def test_missing_config_is_named_with_the_nearest(path, hint):
    with pytest.raises(FileNotFoundError, match=f"there is no config '{path}': {hint}"):
        check_config_file(path)


def test_configs_are_laid_over_one_another_in_the_long_form():
    merged = merged_config(["mine.yaml", "configs/adapters/b_only_r8.yaml"])
    arguments = {"num_classes": 3, "adapter": {"rank": 8}}
    assert merged == {"model": {"class_path": "ImageClassifier", "init_args": arguments}}


def test_empty_config_says_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert merged_config(["empty.yaml"]) == {}
