import json

import datasets
import numpy as np
import pytest

from asym_lightning.data import TextFilesDataModule
from asym_lightning.data.tokens import tokenized_text
from tests.text_stand_ins import word_pieces


@pytest.fixture
def files(tmp_path):
    rows = [
        {"text": "the cat sat .", "second": "a dog .", "label": "pos" if i % 2 else "neg", "key": f"k{i}"}
        for i in range(6)
    ]

    def make(rows=rows, **options):
        path = tmp_path / "train.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        defaults = {"train": path, "val": path, "tokenizer": word_pieces(), "cache_dir": tmp_path / "cache"}
        return TextFilesDataModule(**{**defaults, **options})

    return make


def test_classes_are_those_of_the_training_file_sorted(files):
    data = files(id_column="key")
    data.setup("fit")
    assert data.label_names == ["neg", "pos"]
    assert data.rows["train"].numbers["labels"].tolist() == [0, 1] * 3
    assert data.rows["train"][3]["ids"] == "k3"


def test_a_column_names_the_adapter_of_each_row(files):
    tenants = ("one", None, "two", "")
    rows = [{"text": "a", "label": f"{i % 2}", "tenant": tenant} for i, tenant in enumerate(tenants)]
    data, without = files(rows, adapter_column="tenant"), files(rows)
    for module in (data, without):
        module.setup("fit")
    assert [data.rows["train"][i]["adapters"] for i in range(4)] == ["one", "", "two", ""]
    assert "adapters" not in without.rows["train"][0]


def test_numbered_classes_are_sorted_as_numbers_and_stand_for_themselves(files):
    data = files([{"text": "a", "label": label} for label in (10, 9, 10)])
    data.setup("fit")
    assert data.label_names == ["9", "10"]
    assert data.rows["train"].numbers["labels"].tolist() == [1, 0, 1]


def test_pairs_scores_and_given_classes(files):
    pairs = files(text_columns=["text", "second"], label_names=["pos", "neg"])
    pairs.setup("fit")
    assert pairs.rows["train"][0]["token_type_ids"].any()
    assert pairs.rows["train"].numbers["labels"].tolist() == [1, 0] * 3
    scores = files([{"text": "a", "label": 0.5}, {"text": "a", "label": "2"}], regression=True)
    scores.setup("fit")
    assert scores.label_names is None
    assert scores.rows["train"].numbers["labels"].tolist() == [0.5, 2.0]


def test_rows_to_predict_need_no_label(files, tmp_path):
    (tmp_path / "new.csv").write_text("text\nthe cat\n")
    data = files(predict=tmp_path / "new.csv")
    data.setup("predict")
    assert data.rows["predict"].numbers["labels"].tolist() == [-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None, "val": None}, "none of the files"),
        ({"text_columns": ["a", "b", "c"]}, "`text_columns` must name one column, or two"),
        ({"regression": True, "label_names": ["a"]}, "`label_names` are for classes"),
        ({"loader": {"batch_size": 0}}, "`batch_size` must be at least 1, not 0"),
        ({"num_train": 0}, "`num_train` must be at least 1"),
        ({"max_length": 0}, "`max_length` must be at least 1"),
    ],
)
def test_bad_argument_is_refused(files, options, message):
    with pytest.raises(ValueError, match=message):
        files(**options)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": None, "label": "a"}], {"label_names": ["a", "b"]}, r"train\.jsonl, line 1: there is no text"),
        (
            [{"text": "a", "label": "b"}],
            {"text_columns": "txt", "label_names": ["a", "b"]},
            r"no column 'txt': did you mean text\?",
        ),
        (
            [{"text": "a", "label": None}],
            {"label_names": ["b", "c"]},
            r"line 1: the label must be one of b, c, 0 to 1, not None\.",
        ),
        ([{"text": "a", "label": "x"}], {"regression": True}, r"line 1: the score 'x' is not a number"),
        (
            [{"text": "a", "label": "b"}],
            {"num_train": 2, "label_names": ["a", "b"]},
            r"`num_train` must be at most 1, the training rows there are",
        ),
        ([{"text": "a", "label": "b"}], {}, r"train\.jsonl has no label but 'b' under 'label': name all classes"),
        ([], {"label_names": ["a", "b"]}, r"train\.jsonl is empty"),
        ([], {}, r"train\.jsonl is empty: there is nothing to use as train data"),
    ],
)
def test_bad_file_is_refused(files, rows, options, message):
    data = files(rows, **options)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")
        data.train_dataloader()


def test_training_on_a_file_that_is_not_given_is_refused(files):
    data = files(train=None, label_names=["neg", "pos"])
    data.setup("fit")
    with pytest.raises(ValueError, match="there is no train data"):
        data.train_dataloader()


def test_a_label_that_training_never_saw_is_named_before_training(files, tmp_path):
    (tmp_path / "test.csv").write_text("text,label\nthe cat,neg\na dog,mixed\n")
    with pytest.raises(ValueError, match=r"test\.csv, line 3: the label must be one of neg, pos, .*not 'mixed'"):
        files(test=tmp_path / "test.csv").prepare_data()


@pytest.mark.parametrize("header", ["", "text,label\n"])
def test_an_empty_csv_is_named(files, tmp_path, header):
    (tmp_path / "empty.csv").write_text(header)
    with pytest.raises(ValueError, match=r"empty\.csv is empty: there is nothing to use as val data"):
        files(val=tmp_path / "empty.csv").prepare_data()


def test_one_column_needs_no_list(files):
    assert files(text_columns="text").text_columns == ("text",)


def test_a_split_of_the_hub_names_its_classes(monkeypatch, tmp_path):
    def load_dataset(repository, name, split):
        assert (repository, name) == ("owner/name", "part")
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
        )
        return datasets.Dataset.from_dict({"text": [split, "a dog"], "label": [1, 0]}, features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    names = {split: f"hf:owner/name:part:{split}" for split in ("train", "test")}
    data = TextFilesDataModule(**names, tokenizer=word_pieces(), cache_dir=tmp_path)
    data.setup("fit")
    data.setup("predict")  # the test data, where nothing else is given
    assert data.label_names == ["no", "yes"]
    assert data.rows["train"].numbers["labels"].tolist() == data.rows["predict"].numbers["labels"].tolist() == [1, 0]


def test_a_large_file_is_tokenised_in_parts_as_the_whole_is(files, tmp_path, monkeypatch):
    rows = [{"text": "the cat sat . " * (1 + i % 3), "label": i % 2} for i in range(7)]
    whole = files(rows, max_length=9, cache_dir=tmp_path / "whole")
    monkeypatch.setattr(tokenized_text, "ROWS_AT_ONCE", 3)
    parts = files(rows, max_length=9, cache_dir=tmp_path / "parts")
    tables = []
    encode = parts.encode
    monkeypatch.setattr(parts, "encode", lambda split, table: tables.append(len(table)) or encode(split, table))
    found = [[module.load("train")[row] for row in range(7)] for module in (parts, whole)]
    assert tables == [3, 3, 1]
    for one, other in zip(*found, strict=True):
        assert {name: np.asarray(value).tolist() for name, value in one.items()} == {
            name: np.asarray(value).tolist() for name, value in other.items()
        }
    assert [item["ids"] for item in found[0]] == [str(row) for row in range(7)]
    assert parts.load("train").facts == whole.load("train").facts == {"num_truncated": 4}


def test_what_is_wrong_in_a_later_part_is_named_by_its_line(files, monkeypatch):
    monkeypatch.setattr(tokenized_text, "ROWS_AT_ONCE", 2)
    data = files([{"text": "a", "label": "1"}] * 3 + [{"text": None, "label": "1"}], label_names=["1", "2"])
    with pytest.raises(ValueError, match=r"train\.jsonl, line 4: there is no text"):
        data.prepare_data()


def test_rows_are_read_from_the_disk_and_not_held(files):
    data = files()
    data.setup("fit")
    rows = data.rows["train"]
    assert rows.file is not None and not rows.sequences["input_ids"].values.flags.owndata
    assert data.train_dataloader().dataset is rows
