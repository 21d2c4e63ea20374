"""Sounds of classes through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import csv
import json
from pathlib import Path

import pytest
import soundfile
import torch
import transformers as tf

from asym_lightning.cli import main
from tests.audio_stand_ins import TONES, write_tiny_wav2vec2, write_tones

CONFIG = Path(__file__).parents[2] / "configs" / "audio" / "keyword_spotting.yaml"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    backbone = str(write_tiny_wav2vec2(Path("encoder")))
    for name, count in (("train", 24), ("test", 6)):
        write_tones(Path(name), count)
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--model.backbone", backbone, *quiet, "--data.loader.num_workers=0"]
    options += ["--data.train=train", "--data.val=test", "--data.test=test"]
    options += ["--data.loader.batch_size=8"]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    learn = ["--model.optimizer.lr=0.01", "--trainer.max_epochs=8"]
    assert main(["fit", *options, *learn]) == 0
    after = scores(capsys)
    assert before["test/accuracy"] < 0.6 and after["test/accuracy"] > 0.85 and after["test/macro_f1"] > 0.85
    run = Path("runs/keyword_spotting/version_1")
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=test"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/keyword_spotting").glob("*/predictions.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["id"] for row in rows] == [f"{name}/{number}.wav" for name in sorted(TONES) for number in range(6)]
    right = sum(row["label"] == row["target"] for row in rows)
    assert right / len(rows) == pytest.approx(after["test/accuracy"], abs=1e-4)

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    merged = tf.AutoModelForAudioClassification.from_pretrained("merge").eval()
    extractor = tf.AutoFeatureExtractor.from_pretrained("merge")
    samples, rate = soundfile.read(f"test/{rows[0]['id']}", dtype="float32")
    inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad():
        logits = merged(**inputs).logits
    expected = [float(rows[0][f"probability_{merged.config.id2label[number]}"]) for number in range(3)]
    assert logits[0].softmax(-1).tolist() == pytest.approx(expected, abs=1e-3)
    peft = pytest.importorskip("peft")
    assert "PeftModel.from_pretrained(model, folder)" in Path("export/README.md").read_text()
    names = json.loads(Path("export/label_names.json").read_text())
    assert names == sorted(TONES)
    base = tf.AutoModelForAudioClassification.from_pretrained(backbone, num_labels=3)
    with_peft = peft.PeftModel.from_pretrained(base, "export").eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).logits, logits, rtol=0, atol=1e-5)
