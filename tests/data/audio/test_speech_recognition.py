"""Clips of speech with their transcripts, and what is left out or refused."""

import json
import re

import numpy as np
import pytest
import soundfile
import transformers as tf

from asym_lightning.data import LoaderOptions, SpeechRecognitionDataModule
from tests.audio_stand_ins import RATE, feature_extractor, letter_tokenizer, tone


@pytest.fixture
def data(tmp_path):
    def make(texts, seconds=0.1, **options):
        soundfile.write(tmp_path / "a.wav", tone(440, 0.1), RATE)
        soundfile.write(tmp_path / "long.wav", tone(440, 0.5), RATE)
        lines = ["file,text", *(f"{'long' if text.islower() else 'a'}.wav,{text}" for text in texts)]
        (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
        options = {"tokenizer": letter_tokenizer(tmp_path), "val": tmp_path / "train.csv", "loader": LoaderOptions(2),
                   "feature_extractor": feature_extractor(), "letter_case": "upper", **options}  # fmt: skip
        return SpeechRecognitionDataModule(tmp_path / "train.csv", **options)

    return make


def test_letters_are_labels_and_texts_references(data):
    module = data(["AB C", "BA"])
    module.setup("fit")
    batch = next(iter(module.val_dataloader()[0]))
    assert batch["labels"].tolist() == [[5, 6, 4, 7], [6, 5, -100, -100]]
    assert batch["reference"] == ["AB C", "BA"] and batch["file"] == ["a.wav", "a.wav"]


def test_clips_without_a_text_and_long_ones_in_training_are_left_out(data):
    module = data(["AB", "", "cab", "C"], max_seconds=0.2)
    with pytest.warns(UserWarning) as warned:
        module.setup("fit")
    said = [str(warning.message) for warning in warned]
    assert any(re.search(r"2 of the 4 clips of train have no transcript or are longer than 0\.2 s", s) for s in said)
    assert any("1 of the 4 clips of val have no transcript, and are left out" in s for s in said)
    assert [row["reference"] for row in module.rows["train"]] == ["AB", "C"]
    assert [row["reference"] for row in module.rows["val"]] == ["AB", "CAB", "C"]
    assert len(module.rows["val"][1]["audio"]) == RATE // 2  # whole


def test_a_folder_will_do_to_predict(data, tmp_path):
    module = data(["AB"], predict=tmp_path)
    module.setup("predict")
    assert [(row["file"], row["reference"]) for row in module.rows["predict"]] == [("a.wav", ""), ("long.wav", "")]


def test_a_tokenizer_that_knows_languages_is_set_to_one(data, tmp_path):
    languages = ["<|startoftranscript|>", "<|en|>", "<|zh|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    vocabulary = {token: i for i, token in enumerate(["<|endoftext|>", *languages, "<|notimestamps|>", "a", "b"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = tf.WhisperTokenizerFast.from_pretrained(tmp_path)
    tokenizer.add_tokens(languages, special_tokens=True)
    module = data(["AB"], tokenizer=tokenizer, language="german", letter_case="lower")
    module.setup("fit")
    names = tokenizer.convert_ids_to_tokens(module.rows["train"][0]["labels"])
    assert names[1:3] == ["<|de|>", "<|transcribe|>"] and names[-1] == "<|endoftext|>"


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["AB", "QXZ"], {}, r"train\.csv, line 3: the tokenizer .* knows less than half of 'QXZ': should `letter_"),
        (["ab"], {"letter_case": "as_is"}, r"line 2: the tokenizer .* knows less than half of 'ab'"),
        (["AB"], {"text_column": "words"}, r"train\.csv has no column 'words'"),
        (["", ""], {}, r"train\.csv: none of the 2 clips can be used as train data"),
        (["AB"], {"language": "german"}, r"the tokenizer .* marks no language: leave out `language`"),
        (["AB"], {"letter_case": "Upper"}, "`letter_case` must be one of as_is, lower, upper, not 'Upper'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(data, texts, options, message):
    with pytest.raises(ValueError, match=message):
        data(texts, **options).setup("fit")


def test_audio_is_what_was_written(data):
    module = data(["AB"])
    module.setup("fit")
    assert np.abs(module.rows["train"][0]["audio"] - tone(440, 0.1)).max() < 1e-3
