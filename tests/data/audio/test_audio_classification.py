"""Clips of audio from folders, tables and the hub, and what is refused."""

import io
import json
import re

import datasets
import numpy as np
import pytest
import soundfile
import torch
import transformers as tf

from asym_lightning.data import AudioClassificationDataModule, LoaderOptions
from tests.audio_stand_ins import RATE, feature_extractor, tone, write_tones

ALONE = LoaderOptions(batch_size=2)


def made(train, **options):
    options = {"feature_extractor": feature_extractor(), "loader": ALONE, **options}
    return AudioClassificationDataModule(train, **options)


def write_table(folder, rows, name="sounds.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def write_sound(path, samples=None, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(440, 0.1, rate) if samples is None else samples, rate, subtype="FLOAT")
    return path


def test_a_folder_has_a_folder_for_each_class(tmp_path):
    data = made(write_tones(tmp_path / "train", 2), val=write_tones(tmp_path / "val", 1))
    data.setup("fit")
    rows = data.rows["train"]
    assert data.label_names == ["high", "low", "mid"]
    assert [(rows.identifier(i), rows[i]["labels"]) for i in (0, 3, 5)] == [
        ("high/0.wav", 0), ("low/1.wav", 1), ("mid/1.wav", 2),
    ]  # fmt: skip
    batch = next(iter(data.val_dataloader()[0]))
    lengths = [len(soundfile.read(tmp_path / "val" / rows_name / "0.wav")[0]) for rows_name in data.label_names]
    assert batch["attention_mask"].sum(dim=1).tolist() == sorted(lengths, reverse=True)
    assert batch["input_values"].shape == batch["attention_mask"].shape


def test_a_part_of_a_folder_is_set_apart(tmp_path):
    data = made(write_tones(tmp_path / "train", 3), num_val=2)
    data.setup("fit")
    names = [{rows.identifier(i) for i in range(len(rows))} for rows in (data.rows["train"], data.rows["val"])]
    assert [len(files) for files in names] == [7, 2] and not names[0] & names[1]


def test_paths_start_from_the_table_and_channels_become_their_mean(tmp_path):
    left, right = np.full(2000, 0.5, np.float32), np.full(2000, -0.25, np.float32)
    write_sound(tmp_path / "clips" / "a.wav", np.stack([left, right], axis=1))
    table = write_table(tmp_path, [{"path": "clips/a.wav", "kind": "x"}, {"path": "clips/a.wav", "kind": "y"}])
    data = made(table, file_column="path", label_column="kind")
    data.setup("fit")
    assert np.allclose(data.rows["train"][0]["audio"], 0.125) and data.rows["train"][1]["labels"] == 1


def test_clips_are_resampled_or_refused(tmp_path):
    write_sound(tmp_path / "a.wav", rate=8000)
    rows = [{"file": "a.wav", "label": label} for label in "xy"]
    data = made(write_table(tmp_path, rows))
    data.setup("fit")
    assert np.abs(data.rows["train"][0]["audio"] - tone(440, 0.1))[200:-200].max() < 0.01
    refused = (
        r"sounds\.jsonl, line 1: a\.wav has 8,000 samples a second, and the model takes 16,000: set `resample: tru"
    )
    with pytest.raises(ValueError, match=refused):
        made(write_table(tmp_path, rows), resample=False).setup("fit")


def test_long_clips_are_cut_and_counted(tmp_path):
    write_sound(tmp_path / "a.wav")
    data = made(write_table(tmp_path, [{"file": "a.wav", "label": label} for label in "xy"]), max_seconds=0.05)
    with pytest.warns(UserWarning, match=r"2 of the 2 clips of train are longer than 0\.05 s and are cut"):
        data.setup("fit")
    assert len(data.rows["train"][0]["audio"]) == 800 and data.rows["train"].lengths().tolist() == [0.05, 0.05]


def test_spectra_have_the_length_that_their_model_takes(tmp_path):
    files = write_tones(tmp_path / "train", 1)
    for extractor, name, shape in (
        (tf.WhisperFeatureExtractor(feature_size=8, chunk_length=1), "input_features", (2, 8, 100)),
        (tf.ASTFeatureExtractor(num_mel_bins=16, max_length=32), "input_values", (2, 32, 16)),
    ):
        data = made(files, feature_extractor=extractor)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert tuple(batch[name].shape) == shape and batch["labels"].dtype == torch.int64


def test_what_is_predicted_needs_no_classes_nor_the_training_data(tmp_path):
    write_sound(tmp_path / "new" / "a.wav")
    data = made(tmp_path / "gone", predict=tmp_path / "new", label_names=["x", "y"])
    data.setup("predict")
    assert data.rows["predict"].identifier(0) == "a.wav" and data.rows["predict"][0]["labels"] == -1


def test_a_data_set_of_the_hub_holds_the_audio_itself(tmp_path, monkeypatch):
    content = write_sound(tmp_path / "a.wav").read_bytes()

    def load_dataset(repository, name, split):
        rows = {"audio": [{"bytes": content, "path": f"{i}.wav"} for i in range(2)], "label": [0, 1]}
        data = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
        return data.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = made("hf:owner/name:train", file_column="audio")
    data.setup("fit")
    assert data.label_names == ["no", "yes"] and data.rows["train"].identifier(1) == "1.wav"
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    assert (data.rows["train"][0]["audio"] == expected).all()


def test_a_clip_that_is_broken_within_is_named_when_it_is_read(tmp_path):
    samples = tone(440, 0.1)
    samples[100] = np.nan
    write_sound(tmp_path / "nan.wav", samples)
    rows = [{"file": "nan.wav", "label": label} for label in "xy"]
    data = made(write_table(tmp_path, rows))
    data.setup("fit")
    with pytest.raises(ValueError, match=r"sounds\.jsonl, line 2: nan\.wav holds NaN or infinity\."):
        data.rows["train"][1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file": "gone.wav", "label": "x"}, r"line 2, 'file': there is no file 'gone\.wav' in .*\."),
        ({"file": "text.wav", "label": "x"}, r"line 2: text\.wav cannot be read as audio \(.*\)\."),
        ({"file": "empty.wav", "label": "x"}, r"line 2: empty\.wav is 0 ms long, and models take 25 ms for a step"),
        ({"file": None, "label": "x"}, r"line 2, 'file': there is no name of a file, but null\."),
        ({"file": 7, "label": "x"}, r"line 2, 'file': there is no name of a file, but 7\."),
        ({"file": "a.wav"}, r"line 2: the label must be one of x, y, 0 to 1, not None"),
        ({"file": "a.wav", "label": "z"}, r"line 2: the label must be one of x, y, 0 to 1, not 'z'"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, message):
    write_sound(tmp_path / "a.wav")
    write_sound(tmp_path / "empty.wav", np.zeros(0, np.float32))
    (tmp_path / "text.wav").write_text("no sound")
    table = write_table(tmp_path, [{"file": "a.wav", "label": "x"}, row])
    with pytest.raises(ValueError, match=message):
        made(table, label_names=["x", "y"]).setup("fit")


def test_what_can_t_be_learnt_from_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no audio \(\.wav, \.flac"):
        made(tmp_path / "empty").setup("fit")
    write_sound(tmp_path / "one" / "x" / "a.wav")
    with pytest.raises(ValueError, match="one has no label but 'x' under 'label': name all classes by `label_names`"):
        made(tmp_path / "one").setup("fit")
    with pytest.raises(ValueError, match=re.escape("there is no column 'file'") + "|has no column 'file'"):
        made(write_table(tmp_path, [{"path": "a.wav", "label": "x"}]), label_names=["x", "y"]).setup("fit")
    with pytest.raises(ValueError, match="none of the files `train`, `val`, `test` and `predict` is given"):
        made(None)
    with pytest.raises(ValueError, match="there is no feature extractor in"):
        made(tmp_path / "one", feature_extractor=str(tmp_path), label_names=["x", "y"]).setup("fit")
