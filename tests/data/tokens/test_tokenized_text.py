"""Large data, tokenised in parts: the batches of the whole, in every task of texts."""

from __future__ import annotations

import json

import pytest
import torch

from asym_lightning.data import (
    AlpacaDataModule,
    PreferenceDataModule,
    QuestionAnsweringDataModule,
    SentencePairDataModule,
    SummarizationDataModule,
    TextFilesDataModule,
    TokenClassificationDataModule,
    found_label_names,
)
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.tables.text_source import LocalFile
from asym_lightning.data.tokens import tokenized_text
from tests.language_models import byte_tokenizer, write_jsonl
from tests.text_stand_ins import word_pieces

WORDS = ["the cat sat", "dogs ran far", "the dog sat far", "cats ran", "a cat ran the dog ran", "the dogs", "far far"]
TASKS = {
    "instructions": (AlpacaDataModule, {"num_val": 0, "max_length": 190}),
    "instructions, packed": (AlpacaDataModule, {"num_val": 0, "packing": True}),
    "instructions, a part for validation": (AlpacaDataModule, {"num_val": 5, "val": None}),
    "preferences": (PreferenceDataModule, {"template": "none", "max_length": 40}),
    "summaries": (SummarizationDataModule, {"max_source_length": 16, "max_target_length": 8}),
    "questions": (QuestionAnsweringDataModule, {"max_length": 10, "stride": 2}),
    "words": (TokenClassificationDataModule, {"max_length": 6}),
    "labels": (TextFilesDataModule, {"max_length": 6}),
    "pairs": (SentencePairDataModule, {"pair_columns": ["prompt", "context"], "text_column": "prompt"}),
}
WITH_WORDS = {"questions", "words", "labels", "pairs"}


def record(number):
    text = WORDS[number % len(WORDS)]
    words = text.split()
    is_left_out = number % 4 == 3
    return {
        "instruction": text * (40 if is_left_out else 1), "output": f"{number}", "prompt": text,
        "chosen": "good", "rejected": "good" if is_left_out else "bad", "document": text * (1 + number % 3),
        "summary": "" if is_left_out else text[: 4 + number % 7], "question": "dog", "context": f"{text} . {text} .",
        "answers": [{"text": words[-1], "answer_start": text.rindex(words[-1])}], "text": text, "tokens": words,
        "tags": ["X" if len(word) > 3 else "O" for word in words], "label": number % 2,
        **({"input": "more"} if number % 5 == 4 else {}),
    }  # fmt: skip


def batches(folder, task, file, rows_at_once, monkeypatch):
    kind, options = TASKS[task]
    for module in (tokenized_text, found_label_names):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    data = kind(**{
        "train": file, "val": file, "predict": file, "loader": LoaderOptions(2),
        "cache_dir": folder / f"by {rows_at_once}",
        "tokenizer": word_pieces() if task in WITH_WORDS else byte_tokenizer(), **options,
    })  # fmt: skip
    data.setup("fit")
    data.setup("predict")
    found = [*data.train_dataloader(), *data.val_dataloader()[0], *data.predict_dataloader()[0]]
    facts = {split: getattr(rows, "facts", None) for split, rows in data.rows.items()}
    return found, facts


@pytest.mark.filterwarnings("ignore:.* were ")
@pytest.mark.parametrize("task", TASKS)
def test_parts_make_the_batches_of_the_whole(task, tmp_path, monkeypatch):
    records = [record(number) for number in range(11)]
    if task == "labels":  # whose files have the same columns in all rows
        records = [{name: each[name] for name in ("text", "label")} for each in records]
    file = write_jsonl(tmp_path / "rows.jsonl", records)
    whole, facts = batches(tmp_path, task, file, 1000, monkeypatch)
    for source in (RecordFile, LocalFile):
        monkeypatch.delattr(source, "read")
    parts, facts_of_parts = batches(tmp_path, task, file, 3, monkeypatch)
    assert facts_of_parts == facts and len(parts) == len(whole) > 5
    for one, other in zip(parts, whole, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


@pytest.mark.filterwarnings("ignore:.* were ")
@pytest.mark.parametrize("layout", ["array", "words by line"])
def test_other_layouts_are_read_in_parts_as_well(layout, tmp_path, monkeypatch):
    records = [record(number) for number in range(7)]
    if layout == "array":
        (file := tmp_path / "rows.json").write_text(json.dumps(records, indent=1))
        task = "preferences"
    else:
        lines = ["".join(f"{word} {tag}\n" for word, tag in zip(r["tokens"], r["tags"], strict=True)) for r in records]
        (file := tmp_path / "rows.conll").write_text("\n".join(lines))
        task = "words"
    (parts, facts), (whole, facts_of_whole) = (batches(tmp_path, task, file, n, monkeypatch) for n in (2, 1000))
    assert facts == facts_of_whole and len(parts) == len(whole)
    for one, other in zip(parts, whole, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items() if isinstance(value, torch.Tensor))
        assert one.get("words") == other.get("words")


@pytest.mark.parametrize(
    ("task", "mistake", "message"),
    [
        ("instructions", {"output": None}, "line 6: the record has no text under `output`"),
        ("preferences", {"chosen": 3}, "line 6: `chosen` must be a text or a list of messages"),
        ("summaries", {"summary": None}, "line 6: there is no text"),
        ("questions", {"question": ""}, "line 6: there is no text under `question`"),
        ("words", {"tags": ["O"]}, "line 6: there are 1 tags for"),
    ],
)
def test_what_is_wrong_in_a_later_part_is_named_by_its_line(task, mistake, message, tmp_path, monkeypatch):
    records = [record(number) for number in range(7)]
    records[5] |= mistake
    file = write_jsonl(tmp_path / "rows.jsonl", records)
    with pytest.raises(ValueError, match=rf"rows\.jsonl, {message}"):
        batches(tmp_path, task, file, 2, monkeypatch)
    assert not [*tmp_path.glob("by 2/*.safetensors")]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("instructions", "in each of the 5 records the prompt fills the 190 tokens"),
        ("preferences", "each of the 5 pairs has two equal answers"),
        ("summaries", "each of the 5 pairs has an empty side"),
    ],
)
def test_parts_of_which_nothing_is_left_are_counted_together(task, message, tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "rows.jsonl", [record(number) for number in range(3, 23, 4)])
    with pytest.raises(ValueError, match=message):
        batches(tmp_path, task, file, 2, monkeypatch)
    assert not [*tmp_path.glob("by 2/*.safetensors")]
