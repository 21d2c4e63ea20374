"""What classes take, read from their source, is what they do take."""

import dataclasses
import importlib
import inspect

import pytest
from lightning.pytorch import Trainer

from asym_lightning.adapters import AdapterConfig
from asym_lightning.cli.class_names import class_names, class_path
from asym_lightning.cli.signatures import explanations, offered_names, signature, summary

CLASSES = [class_path(key, name) for key in ("model", "data", "trainer.callbacks") for name in class_names(key)]


def load(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", [path for path in CLASSES if signature(path)])
def test_arguments_are_those_of_the_class(path):
    parameters = inspect.signature(load(path)).parameters
    found = signature(path).arguments
    assert list(found) == list(parameters)
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    assert [name for name, argument in found.items() if argument.default is None] == required


def test_types_are_shown_without_their_ranges():
    found = signature("asym_lightning.adapters.AdapterConfig").arguments
    shown = {name: found[name].annotation for name in ("rank", "max_rank", "rank_pattern", "targets")}
    assert shown == {
        "rank": "int", "max_rank": "int | None", "rank_pattern": "Mapping[str, int]",
        "targets": "Sequence[str] | str",
    }  # fmt: skip


def test_all_tasks_and_data_modules_can_be_read():
    paths = [class_path(key, name) for key in ("model", "data") for name in class_names(key)]
    assert [path for path in paths if signature(path) is None] == []


@pytest.mark.parametrize("path", [path for path in CLASSES if path.startswith("asym_lightning.") and signature(path)])
def test_every_argument_of_this_package_is_explained(path):
    explained = explanations(path)
    assert [name for name in signature(path).arguments if not explained.get(name)] == []
    assert summary(path).endswith(".")


def test_arguments_of_the_trainer_are_all_there():
    assert list(signature("lightning.pytorch.Trainer").arguments) == list(inspect.signature(Trainer).parameters)


def test_fields_of_a_dataclass_are_its_arguments():
    found = signature("asym_lightning.adapters.AdapterConfig").arguments
    assert list(found) == [field.name for field in dataclasses.fields(AdapterConfig)]
    assert found["scheme"].default == "'hB_zero_A_rand'"
    assert found["rank_pattern"].default == "dict()"
    assert found["max_rank"].annotation == "int | None"


def test_types_go_by_what_their_names_stand_for():
    found = signature("asym_lightning.modules.ImageClassifier").arguments
    assert found["adapter"].class_path == "asym_lightning.adapters.config.AdapterConfig"
    assert found["optimizer"].default_class == "torch.optim.adamw.AdamW"
    assert found["scheduler"].class_path is None  # one of several
    options = signature("asym_lightning.modules.BackboneOptions").arguments
    assert options["quantization"].annotation == "Literal['nf4', 'int8'] | None"


@pytest.mark.parametrize(
    "path",
    ["", "ImageClassifier", "no.such.Class", "asym_lightning.modules.Nonsense", "asym_lightning.cli.main"],
)
def test_class_that_is_not_found_has_no_signature(path):
    assert signature(path) is None
    assert summary(path) == ""
    assert explanations(path) == {}


def test_class_that_takes_whatever_it_is_given_has_no_signature(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "taking.py").write_text("class Any:\n    def __init__(self, first, **rest): ...\n")
    assert signature("taking.Any") is None


def test_constructor_of_a_base_counts_where_a_class_has_none(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "base.py").write_text("class Base:\n    def __init__(self, width: int, depth=2): ...\n")
    (tmp_path / "sub.py").write_text("from base import Base\n\nclass Sub(Base):\n    pass\n")
    assert list(signature("sub.Sub").arguments) == ["width", "depth"]


def test_offered_names_can_leave_out_what_is_at_home_elsewhere():
    assert "Milestones" in offered_names("asym_lightning.callbacks")
    assert "Milestones" not in offered_names("asym_lightning.callbacks", at_home=True)
