"""The page of tasks names all there are: modules, data modules and folders of configs."""

from pathlib import Path

import pytest

from asym_lightning.cli.class_names import class_names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tasks.md").read_text()


@pytest.mark.parametrize("key", ["model", "data"])
def test_it_names_every_module_and_data_module(key):
    assert [name for name in class_names(key) if f"`{name}`" not in PAGE] == []


def test_it_names_every_folder_of_configs_of_a_task():
    tasks = {path.parent.name for path in (ROOT / "configs").glob("*/*.yaml") if "\nmodel:" in path.read_text()}
    folders = tasks - {"adapters", "strategies", "configs"}
    assert len(folders) > 5 and [name for name in folders if f"`{name}/" not in PAGE] == []
