"""Texts with any number of classes."""

import json

import pytest

from asym_lightning.data import MultiLabelTextDataModule
from tests.text_stand_ins import word_pieces

ROWS = [{"text": "the cat", "labels": ["b", "a"]}, {"text": "a dog", "labels": []}, {"text": "mat", "labels": ["c"]}]


@pytest.fixture
def data(tmp_path):
    def make(content=ROWS, name="train.jsonl", **options):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        defaults = {"train": path, "val": path, "tokenizer": word_pieces(), "cache_dir": tmp_path / "cache"}
        return MultiLabelTextDataModule(**{**defaults, **options})

    return make


def classes(module, split="train"):
    rows = module.rows[split]
    return [[module.label_names[number] for number in rows[row]["labels"]] for row in range(len(rows))]


def test_lists_and_cells_hold_any_number_of_classes(data):
    content = 'text,labels\nthe cat,"b, a"\na dog,\nmat,c\n'
    for module in (data(), data(content, "a.csv"), data(content.replace('"b, a"', "b|a"), "b.csv", separator="|")):
        module.setup("fit")
        assert module.label_names == ["a", "b", "c"]
        assert classes(module) == [["b", "a"], [], ["c"]]


def test_a_batch_is_padded_with_no_class(data):
    module = data()
    module.setup("fit")
    (batch,) = module.val_dataloader()[0]
    assert sorted(row[row >= 0].tolist() for row in batch["labels"]) == [[], [1, 0], [2]]
    assert batch["labels"].min() == -1


def test_texts_to_predict_need_no_classes(data, tmp_path):
    (tmp_path / "new.csv").write_text("text,key\nthe cat,k\n")
    module = data(train=None, val=None, predict=tmp_path / "new.csv", label_names=["a", "b"], id_column="key")
    module.setup("predict")
    assert classes(module, "predict") == [[]] and module.rows["predict"][0]["ids"] == "k"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ([{"text": "a", "labels": ["x", "q"]}], {"label_names": ["x", "y"]},
         r"train\.jsonl, line 1: the class must be one of x, y, not 'q'"),
        ([{"text": "a", "labels": None}], {}, "line 1: the classes must be a list or a text, not null"),
        ([{"text": "a", "labels": [["x"]]}], {}, "line 1: the classes must be a list or a text"),
        ([{"text": "a", "label": "x"}], {}, r"no column 'labels': did you mean label\?"),
        ([{"text": None, "labels": ["x"]}], {}, "line 1: there is no text"),
        ([{"text": "a", "labels": []}], {}, "has no class under 'labels': name all by `label_names`"),
        ([{"text": "a", "labels": ["x"]}], {"text_columns": ["a", "b", "c"]}, "`text_columns` must name one column"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_line(data, content, options, message):
    with pytest.raises(ValueError, match=message):
        data(content, **options).setup("fit")
