"""Questions from files of SQuAD and records, in windows."""

import itertools
import json

import numpy as np
import pytest

from asym_lightning.data import QuestionAnsweringDataModule
from tests.text_stand_ins import word_pieces

CONTEXT = "the cat sat on a mat . a dog ran far ."
RECORDS = [
    {"id": "one", "question": "the dog ?", "context": CONTEXT, "answers": {"text": ["ran far"], "answer_start": [29]}},
    {"id": "two", "question": "a cat ?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
]


def squad(records):
    asked = [
        {"id": r["id"], "question": r["question"], "is_impossible": not r["answers"]["text"],
         "answers": [{"text": t, "answer_start": s} for t, s in zip(*r["answers"].values(), strict=True)]}
        for r in records
    ]  # fmt: skip
    return {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": asked}]}]}


@pytest.fixture
def data(tmp_path):
    def make(content=RECORDS, name="train.jsonl", **options):
        path = tmp_path / name
        text = "\n".join(map(json.dumps, content)) if name.endswith(".jsonl") else json.dumps(content)
        path.write_text(text if not isinstance(content, bytes) else content.decode())
        defaults = {
            "train": path,
            "val": path,
            "tokenizer": word_pieces(),
            "cache_dir": tmp_path / "cache",
            "stride": 2,
        }
        return QuestionAnsweringDataModule(**{**defaults, **options})

    return make


def test_files_of_squad_arrays_and_lines_are_the_same(data):
    found = []
    for content, name in ((squad(RECORDS), "a.json"), (RECORDS, "b.json"), (RECORDS, "c.jsonl")):
        module = data(content, name)
        module.setup("fit")
        found.append([question._asdict() for question, _ in module.rows["val"]])
    assert found[0] == found[1] == found[2]
    assert [(q["identifier"], q["answers"]) for q in found[0]] == [("one", ["ran far"]), ("two", [])]


def test_windows_cover_the_text_and_label_what_they_hold(data):
    module = data(max_length=12)
    module.setup("fit")
    windows = module.rows["train"]
    own = [windows[row] for row in range(len(windows)) if windows.numbers["question"][row] == 0]
    assert len(own) > 2 and all(len(window["input_ids"]) <= 12 for window in own)
    places = [window["starts"][window["starts"] >= 0] for window in own]
    assert set(np.concatenate(places)) == {i for i in range(len(CONTEXT)) if i == 0 or CONTEXT[i - 1] == " "}
    for before, after in itertools.pairwise(places):
        assert (before[-2:] == after[:2]).all()  # the stride
    holding = [window for window in own if window["start_positions"]]
    assert holding and len(holding) < len(own)
    for window in holding:
        first, last = window["starts"][window["start_positions"]], window["ends"][window["end_positions"]]
        assert CONTEXT[first:last] == "ran far"
    assert not any(windows[row]["end_positions"] for row in range(len(windows)) if windows.numbers["question"][row])


def test_a_batch_of_evaluation_has_all_windows_of_its_questions(data):
    module = data(max_length=12, loader={"batch_size": 1, "eval_batch_size": 1})
    module.setup("fit")
    batches = list(module.val_dataloader()[0])
    assert len(batches) == 2
    for batch in batches:
        assert {RECORDS[number]["id"] for number in batch["question"].tolist()} == {batch["questions"][0]["identifier"]}
        assert batch["of"].tolist() == [0] * len(batch["input_ids"]) and len(batch["of"]) > 2
        assert (batch["starts"][batch["attention_mask"] == 0] == -1).all()
    assert module.rows["val"].identifier(1) == "two"
    assert len(module.rows["val"].lengths()) == 2


def test_questions_to_predict_need_no_answers(data, tmp_path):
    (tmp_path / "new.jsonl").write_text(json.dumps({"question": "a cat ?", "context": CONTEXT}) + "\n")
    module = data(train=None, val=None, predict=tmp_path / "new.jsonl")
    module.setup("predict")
    assert module.rows["predict"][0][0].answers is None


def record(**changes):
    return [{**RECORDS[0], **changes}]


@pytest.mark.parametrize(
    ("content", "name", "options", "message"),
    [
        (record(question=None), "a.jsonl", {}, r"a\.jsonl, line 1 \('one'\): there is no text under `question`"),
        (record(context=" "), "a.jsonl", {}, "there is no text under `context`"),
        (record(answers=None), "a.jsonl", {}, "line 1: there is nothing under `answers` to learn"),
        (record(answers={"text": ["ran"], "answer_start": [3]}), "a.jsonl", {},
         r"line 1 \('one'\): the answer 'ran' does not stand at character 3 of the context"),
        (record(answers={"text": ["ran"], "answer_start": []}), "a.jsonl", {}, "must hold as many `text` as"),
        (record(answers=[{"text": "ran"}]), "a.jsonl", {}, "an answer must have a `text` and an `answer_start`"),
        (record(answers="ran"), "a.jsonl", {}, "must hold as many `text` as"),
        (record(), "a.jsonl", {"max_length": 8}, "a window of `max_length` 8 holds the 3 tokens of the question"),
        ({"data": [{"title": "x"}]}, "a.json", {}, "is neither in the layout of SQuAD"),
        ({"version": 1}, "a.json", {}, "is neither in the layout of SQuAD"),
        ({"data": []}, "a.json", {}, "is empty: there is nothing to use as train data"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_their_place(data, content, name, options, message):
    with pytest.raises(ValueError, match=message):
        data(content, name, **options).setup("fit")


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none of the files"):
        QuestionAnsweringDataModule()
    with pytest.raises(ValueError, match="`stride` must be at least 0"):
        QuestionAnsweringDataModule("a.json", stride=-1)
