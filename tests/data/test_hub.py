"""Data sets of the hub, by a folder of parquet files that `datasets` loads by the same name, without a network."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import datasets
import pytest
import soundfile
from datasets import Audio, ClassLabel, Features, Image, List, Value
from PIL import Image as Pillow

import asym_lightning.data
from asym_lightning.data import (
    AlpacaDataModule,
    AudioClassificationDataModule,
    LoaderOptions,
    MultiLabelTextDataModule,
    PreferenceDataModule,
    QuestionAnsweringDataModule,
    SentencePairDataModule,
    SpeechRecognitionDataModule,
    SummarizationDataModule,
    TextFilesDataModule,
    TokenClassificationDataModule,
    VisionLanguageDataModule,
)
from tests.audio_stand_ins import RATE, feature_extractor, letter_tokenizer, tone
from tests.language_models import byte_tokenizer
from tests.picture_stand_ins import llava_processor
from tests.text_stand_ins import SENTENCES, write_tiny_bert

TEXT, NUMBER = Value("string"), Value("int64")
SAID = [{"role": "user", "content": "a ?"}, {"role": "assistant", "content": "red"}]
OTHER = [SAID[0], {"role": "assistant", "content": "blue"}]
SOUND = {"bytes": Value("binary"), "path": TEXT}
MESSAGES = List({"role": TEXT, "content": TEXT})


class Hub(NamedTuple):
    """A data set as the hub has it, how it is read, and what is asked of the data module."""

    features: dict[str, Any]
    row: Callable[[int], dict[str, Any]]
    make: Callable[..., Any]
    found: Callable[[Any], Any]
    expected: Any


def labels(data: Any) -> Any:
    return data.label_names, [data.rows["train"][row]["labels"] for row in (0, 1)]


def lists_of_labels(data: Any) -> Any:
    names, rows = labels(data)
    return names, [list(row) for row in rows]


def sound() -> dict[str, Any]:
    file = io.BytesIO()
    soundfile.write(file, tone(440, 0.1), RATE, format="WAV")
    return {"bytes": file.getvalue(), "path": "a.wav"}


def picture() -> dict[str, Any]:
    file = io.BytesIO()
    Pillow.new("RGB", (8, 8), (220, 0, 0)).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def of_texts(kind: Any, **options: Any) -> Callable[..., Any]:
    return lambda train, folder: kind(
        train, tokenizer=str(write_tiny_bert(folder / "bert")), cache_dir=folder / "cache", **options
    )


def of_language(kind: Any, **options: Any) -> Callable[..., Any]:
    return lambda train, folder: kind(train=train, tokenizer=byte_tokenizer(), cache_dir=folder / "cache", **options)


CLASS = ClassLabel(names=["no", "yes"])
HUBS: dict[str, Hub] = {
    "classes of texts": Hub(
        {"text": TEXT, "label": CLASS}, lambda n: {"text": SENTENCES[n], "label": n % 2}, of_texts(TextFilesDataModule),
        labels, (["no", "yes"], [0, 1]),
    ),
    "sets of classes": Hub(
        {"text": TEXT, "labels": List(CLASS)}, lambda n: {"text": SENTENCES[n], "labels": [[0, 1], [1]][n % 2]},
        of_texts(MultiLabelTextDataModule), lists_of_labels, (["no", "yes"], [[0, 1], [1]]),
    ),
    "tags": Hub(
        {"tokens": List(TEXT), "ner_tags": List(ClassLabel(names=["O", "B-X", "I-X"]))},
        lambda n: {"tokens": ["good", "film"], "ner_tags": [n % 2, 0]},
        of_texts(TokenClassificationDataModule, tags_column="ner_tags"),
        lambda data: (data.label_names, [max(data.rows["train"][row]["labels"]) for row in (0, 1)]),
        (["O", "B-X", "I-X"], [0, 1]),
    ),
    "questions": Hub(
        {"id": TEXT, "question": TEXT, "context": TEXT, "answers": {"text": List(TEXT), "answer_start": List(NUMBER)}},
        lambda n: {"id": str(n), "question": "what ?", "context": "a good film",
                   "answers": {"text": ["good"], "answer_start": [2]}},
        of_texts(QuestionAnsweringDataModule, stride=4), lambda data: len(data.rows["train"]), 4,
    ),
    "pairs of sentences": Hub(
        {"anchor": TEXT, "positive": TEXT}, lambda n: {"anchor": SENTENCES[n], "positive": SENTENCES[n]},
        of_texts(SentencePairDataModule),
        lambda data: {"anchor_input_ids", "positive_input_ids"} <= set(data.rows["train"][0]),
        True,
    ),
    "summaries": Hub(
        {"document": TEXT, "summary": TEXT}, lambda n: {"document": SENTENCES[n], "summary": "good"},
        of_language(SummarizationDataModule), lambda data: len(data.rows["train"]), 4,
    ),
    "instructions": Hub(
        {"instruction": TEXT, "input": TEXT, "output": TEXT},
        lambda n: {"instruction": SENTENCES[n], "input": "", "output": "good"},
        of_language(AlpacaDataModule, num_val=0), lambda data: len(data.rows["train"]), 4,
    ),
    "preferences": Hub(
        {"prompt": TEXT, "chosen": MESSAGES, "rejected": MESSAGES},
        lambda n: {"prompt": "a ?", "chosen": SAID, "rejected": OTHER},
        of_language(PreferenceDataModule, template="alpaca"),
        lambda data: len(data.rows["train"]), 4,
    ),
    "classes of sounds": Hub(
        {"audio": SOUND, "label": CLASS}, lambda n: {"audio": sound(), "label": n % 2},
        lambda train, folder: AudioClassificationDataModule(
            train, file_column="audio", feature_extractor=feature_extractor()
        ),
        labels, (["no", "yes"], [0, 1]),
    ),
    "speech": Hub(
        {"audio": SOUND, "text": TEXT}, lambda n: {"audio": sound(), "text": "A B"},
        lambda train, folder: SpeechRecognitionDataModule(
            train, file_column="audio", feature_extractor=feature_extractor(), tokenizer=letter_tokenizer(folder)
        ),
        lambda data: [data.rows["train"][0]["reference"], len(data.rows["train"][0]["audio"])], ["A B", RATE // 10],
    ),
    "pictures": Hub(
        {"images": List(Image()), "messages": MESSAGES}, lambda n: {"images": [picture()], "messages": SAID},
        lambda train, folder: VisionLanguageDataModule(train, processor=llava_processor()),
        lambda data: data.rows["train"][0]["reference"], "red",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUBS)
def test_a_data_set_of_the_hub_is_read_by_its_name(tmp_path, monkeypatch, name):
    hub = HUBS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    rows = [hub.row(number) for number in range(4)]
    data_set = datasets.Dataset.from_list(rows, features=Features(hub.features))
    if "audio" in hub.features:  # which may hold bytes, but takes another package to be made of them
        data_set = data_set.cast_column("audio", Audio())
    data_set.to_parquet(tmp_path / "owner" / "name" / "train.parquet")
    data = hub.make("hf:owner/name:train", tmp_path)
    data.loader = LoaderOptions(2)
    data.setup("fit")
    assert hub.found(data) == hub.expected
    assert next(iter(data.train_dataloader()))


def test_every_data_module_that_names_the_hub_is_here(tmp_path):
    named = {
        name
        for name in asym_lightning.data.__all__
        if "hf:owner/name:split" in (getattr(asym_lightning.data, name).__doc__ or "")
    }
    assert named == {type(hub.make("hf:owner/name:train", tmp_path)).__name__ for hub in HUBS.values()}
