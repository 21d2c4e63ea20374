"""Names of classes that data modules of texts are given, or find."""

import inspect
import json

import pytest

from asym_lightning import data, modules
from asym_lightning.data import MultiLabelTextDataModule, TextFilesDataModule, TokenClassificationDataModule
from tests.text_stand_ins import word_pieces

ROW = {"text": "the cat", "label": "b", "labels": ["b", "a"], "tokens": ["the", "cat"], "tags": ["b", "a"]}
KINDS = [TextFilesDataModule, MultiLabelTextDataModule, TokenClassificationDataModule]
GIVEN = [
    cls
    for package in (data, modules)
    for cls in (getattr(package, name) for name in package.__all__)
    if inspect.isclass(cls) and "label_names" in inspect.signature(cls.__init__).parameters
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({**ROW, "label": label}) + "\n" for label in "ba"))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_those_given_or_of_the_training_data(kind, file, tmp_path):
    assert kind(file, tokenizer=word_pieces()).label_names == ["a", "b"]
    assert kind(tmp_path / "none", label_names=("b", "a")).label_names == ["b", "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_a_model_serve_where_the_training_data_is_gone_and_are_not_kept(kind, tmp_path, monkeypatch):
    module = kind(tmp_path / "none.jsonl")
    for names in (["x", "y"], ["z", "y"]):
        monkeypatch.setattr(kind, "label_names_of_model", names)
        assert module.label_names == names
    monkeypatch.setattr(kind, "label_names_of_model", None)
    with pytest.raises(ValueError, match="`label_names` must be given where there is no training file"):
        assert kind(test=tmp_path / "none.jsonl").label_names


@pytest.mark.parametrize("kind", GIVEN, ids=lambda kind: kind.__name__)
def test_a_name_that_is_there_twice_is_refused_by_all_that_take_names(kind):
    with pytest.raises(ValueError, match=r"^`label_names` has 'a' twice; each must be there once\.$"):
        kind("any", label_names=["a", "b", "a"])


def test_all_that_take_names_are_known():
    assert {*KINDS} < {*GIVEN}
