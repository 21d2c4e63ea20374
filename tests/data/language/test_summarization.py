"""Summarisation data: what batches hold, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from asym_lightning.data.language.summarization import SummarizationDataModule
from tests.language_models import word_tokenizer, write_jsonl

PAIRS = [
    {"document": "the cat sat on the mat", "summary": "cat sat\non mat"},
    {"document": "dogs bark", "summary": "bark"},
    {"document": " ", "summary": "nothing"},
    {"document": "no summary here", "summary": ""},
]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([text for pair in PAIRS for text in pair.values()] + ["summarize :"], encoder_decoder=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", PAIRS)


def data_module(file: Path, tokenizer, **arguments) -> SummarizationDataModule:
    settings = {"train": file, "val": file, "test": file, "tokenizer": tokenizer, "cache_dir": file.parent / "cache"}
    return SummarizationDataModule(**{**settings, **arguments})


def test_batches_hold_tokens_labels_and_whole_texts(file, tokenizer) -> None:
    data = data_module(file, tokenizer, prefix="summarize: ")
    with pytest.warns(UserWarning, match="2 pairs of val were left out: their document or summary is empty"):
        data.setup("fit")
    (loader,) = data.val_dataloader()
    (batch,) = loader
    assert batch["source"] == [PAIRS[0]["document"], PAIRS[1]["document"]]
    assert batch["reference"] == ["cat sat\non mat", "bark"]
    ids = tokenizer(["summarize: dogs bark"])["input_ids"][0]
    assert batch["input_ids"][1, : len(ids)].tolist() == ids
    assert batch["attention_mask"].sum(dim=1).tolist() == [10, 6]
    assert batch["labels"].tolist()[1] == [*tokenizer("bark")["input_ids"], *[-100] * 5]
    (train,) = data.train_dataloader()
    assert "source" not in train


def test_long_texts_are_cut_and_counted_but_references_stay_whole(file, tokenizer) -> None:
    data = data_module(file, tokenizer, max_source_length=5, max_target_length=4)
    with pytest.warns(UserWarning, match="1 of the 2 summaries of test are longer than the 4 tokens"):
        data.setup("test")
    item = data.rows["test"][0]
    assert item["input_ids"].tolist() == tokenizer("the cat sat")["input_ids"]
    assert item["labels"].tolist() == tokenizer("cat sat")["input_ids"]  # the end of the text is kept
    assert item["reference"] == "cat sat\non mat"


def test_documents_without_summaries_can_be_predicted_but_not_tested_on(file, tokenizer, tmp_path) -> None:
    file = write_jsonl(tmp_path / "documents.jsonl", [{"document": "dogs bark"}])
    data = data_module(file, tokenizer, predict=file)
    data.setup("predict")
    (loader,) = data.predict_dataloader()
    (batch,) = loader
    assert (batch["reference"], "labels" in batch) == ([""], False)
    with pytest.raises(ValueError, match=r"documents\.jsonl has no column 'summary'; there are document\."):
        data.setup("test")


@pytest.mark.parametrize("dataset", ["xsum", "cnn_dailymail"])
def test_hub_data_sets_are_read_by_their_own_columns(dataset, tokenizer, tmp_path, monkeypatch) -> None:
    asked = []

    def load_dataset(repository, name, split):
        asked.append((repository, name, split))
        columns = ("document", "summary") if dataset == "xsum" else ("article", "highlights")
        return datasets.Dataset.from_dict({columns[0]: ["dogs bark"], columns[1]: ["bark"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = SummarizationDataModule(dataset, tokenizer=tokenizer, cache_dir=tmp_path)
    data.setup("test")
    assert data.rows["test"][0]["reference"] == "bark"
    expected = {"xsum": ("EdinburghNLP/xsum", None), "cnn_dailymail": ("abisee/cnn_dailymail", "3.0.0")}[dataset]
    assert set(asked) == {(*expected, "test")}


def test_another_split_of_the_hub_has_the_columns_that_are_named(tokenizer, tmp_path, monkeypatch) -> None:
    def load_dataset(repository, name, split):
        columns = {"EdinburghNLP/xsum": ("document", "summary"), "owner/name": ("body", "title")}[repository]
        return datasets.Dataset.from_dict({columns[0]: [f"dogs bark {split}"], columns[1]: ["bark"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = SummarizationDataModule(
        "xsum", test="hf:owner/name:last", document_column="body", summary_column="title",
        tokenizer=tokenizer, cache_dir=tmp_path,
    )  # fmt: skip
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    sources = {split: data.rows[split][0]["source"] for split in ("val", "test", "predict")}
    assert sources == {"val": "dogs bark validation", "test": "dogs bark last", "predict": "dogs bark last"}


def test_a_missing_text_is_an_error_with_file_and_line(tokenizer, tmp_path) -> None:
    file = write_jsonl(tmp_path / "pairs.jsonl", [PAIRS[0], {"document": "dogs bark"}])
    with pytest.raises(ValueError, match=r"pairs\.jsonl, line 2: there is no text"):
        data_module(file, tokenizer).setup("fit")


def test_bad_input_is_refused(file, tokenizer, tmp_path) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl", PAIRS[2:])
    with pytest.raises(ValueError, match="each of the 2 pairs has an empty side"):
        data_module(empty, tokenizer).setup("fit")
    with pytest.raises(ValueError, match="neither `dataset` nor one of the files"):
        SummarizationDataModule()
    with pytest.raises(ValueError, match="`dataset` must be one of xsum, cnn_dailymail, not 'xsumm'"):
        SummarizationDataModule("xsumm")
    with pytest.raises(ValueError, match="`max_target_length` must be at least 1"):
        data_module(file, tokenizer, max_target_length=0)
