"""Speech to text through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import json
from pathlib import Path

import pytest
import soundfile
import torch
import transformers as tf

from asym_lightning.cli import main
from tests.audio_stand_ins import write_speech, write_tiny_ctc, write_tiny_whisper

CONFIGS = Path(__file__).parents[2] / "configs" / "audio"
QUIET = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
DATA = ["--data.train=train.csv", "--data.val=test.csv", "--data.test=test.csv", "--data.file_column=file",
        "--data.loader.num_workers=0", "--data.loader.batch_size=8"]  # fmt: skip
LEARN = ["--model.adapter.targets=all-linear", "--model.adapter.rank=8", "--model.adapter.alpha=32",
         "--model.adapter.dropout=0", "--trainer.accumulate_grad_batches=1"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_sets(words):
    for name, count in (("train", 150), ("test", 24)):
        write_speech(Path(f"{name}.csv"), count, words)


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


def written(folder):
    (file,) = Path(folder).glob("*/transcripts.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_a_config_with_ctc_learns_and_its_model_opens_in_transformers(capsys):
    write_sets(words=1)
    backbone = str(write_tiny_ctc(Path("encoder")))
    options = ["--config", str(CONFIGS / "librispeech_100h.yaml"), "--model.backbone", backbone, *QUIET, *DATA, *LEARN]
    with pytest.warns(UserWarning, match="the adapter is fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    learn = ["--model.optimizer.lr=0.01", "--trainer.max_epochs=80", "--trainer.check_val_every_n_epoch=20"]
    assert main(["fit", *options, *learn]) == 0
    after = scores(capsys)
    assert before["test/wer"] > 0.8 and after["test/wer"] < 0.2 and after["test/cer"] < 0.1
    run = Path("runs/librispeech_100h/version_1")
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=test", "--ckpt_path", str(run)]
    assert main(["predict", *options, *new]) == 0
    rows = written("runs/librispeech_100h")
    assert [row["file"] for row in rows] == sorted(f"{number}.wav" for number in range(24))
    assert not any(row["reference"] for row in rows)

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    processor, merged = tf.AutoProcessor.from_pretrained("merge"), tf.AutoModelForCTC.from_pretrained("merge").eval()
    for row in rows[:4]:
        samples, rate = soundfile.read(f"test/{row['file']}", dtype="float32")
        inputs = processor(samples, sampling_rate=rate, return_tensors="pt")
        with torch.no_grad():
            logits = merged(**inputs).logits
        assert processor.batch_decode(logits.argmax(-1))[0].strip() == row["transcript"]
    peft = pytest.importorskip("peft")
    assert "PeftModel.from_pretrained(model, folder)" in Path("export/README.md").read_text()
    with_peft = peft.PeftModel.from_pretrained(tf.AutoModelForCTC.from_pretrained(backbone), "export").eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).logits, logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_config_of_whisper_learns_and_its_model_opens_in_transformers(capsys):
    write_sets(words=2)
    backbone = str(write_tiny_whisper(Path("whisper"), init_std=0.2))
    options = ["--config", str(CONFIGS / "whisper_small.yaml"), "--model.backbone", backbone, *QUIET, *DATA, *LEARN]
    options += ["--model.decoding.max_new_tokens=8", "--data.letter_case=lower", "--data.language=null"]
    with pytest.warns(UserWarning, match="the adapter is fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    learn = ["--model.optimizer.lr=0.01", "--model.scheduler=null", "--trainer.max_epochs=15"]
    assert main(["fit", *options, *learn]) == 0
    after = scores(capsys)
    assert before["test/wer"] > 0.9 and after["test/wer"] < 0.8
    assert after["test/token_accuracy"] > 0.5 > before["test/token_accuracy"]
    run = Path("runs/whisper_small/version_1")
    assert main(["predict", *options, "--ckpt_path", str(run)]) == 0
    assert main(["merge", str(run), "--output", "merge"]) == 0
    merged = tf.AutoModelForSpeechSeq2Seq.from_pretrained("merge").eval()
    extractor, tokenizer = tf.AutoFeatureExtractor.from_pretrained("merge"), tf.AutoTokenizer.from_pretrained("merge")
    for row in written("runs/whisper_small")[:4]:
        samples, rate = soundfile.read(row["file"], dtype="float32")
        ids = merged.generate(**extractor(samples, sampling_rate=rate, return_tensors="pt"), max_new_tokens=8)
        assert tokenizer.decode(ids[0], skip_special_tokens=True).strip() == row["transcript"]
