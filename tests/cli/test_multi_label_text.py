"""Texts of several classes through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers as tf

from asym_lightning.cli import main
from tests.text_stand_ins import write_tiny_bert

CONFIG = Path(__file__).parents[2] / "configs" / "labels" / "go_emotions.yaml"
WORDS = {"cat": "pet", "dog": "loud", "mat": "home"}  # each with the class that it stands for
LEARN = ["--model.adapter.targets=all-linear", "--model.adapter.alpha=32", "--model.threshold=0.5",
         "--model.optimizer.lr=0.005", "--trainer.max_epochs=12", "--data.loader.batch_size=8"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_texts(name, count):
    chance, rows = random.Random(name), ["key,text,labels"]
    for number in range(count):
        words = chance.sample([*WORDS, "the", "far"], k=3)
        classes = "|".join(WORDS[word] for word in WORDS if word in words)
        rows.append(f"{name}{number},{' '.join(words)},{classes}")
    Path(f"{name}.csv").write_text("\n".join(rows) + "\n")


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    backbone = str(write_tiny_bert(Path("encoder"), hidden_size=64))
    for name, count in (("train", 300), ("test", 30)):
        write_texts(name, count)
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--model.backbone", backbone, *quiet, "--data.separator=|", *LEARN[:3]]
    options += ["--data.train=train.csv", "--data.val=test.csv", "--data.test=test.csv", "--data.id_column=key"]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, *LEARN[3:]]) == 0
    after = scores(capsys)
    assert after["test/loss"] < 0.7 * before["test/loss"] and after["test/macro_f1"] > 0.75 > before["test/macro_f1"]
    run = Path("runs/go_emotions/version_1")
    Path("train.csv").unlink()
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=test.csv"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/go_emotions").glob("*/predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"test{number}" for number in range(30)]
    num_right = sum(set(row["labels"]) == set(row.get("targets", ())) for row in rows)
    assert num_right / 30 == pytest.approx(after["test/exact_match"], abs=1e-4)

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    merged = tf.AutoModelForSequenceClassification.from_pretrained("merge").eval()
    assert merged.config.problem_type == "multi_label_classification"
    text = Path("test.csv").read_text().splitlines()[1].split(",")[1]
    inputs = tf.AutoTokenizer.from_pretrained("merge")(text, return_tensors="pt")
    with torch.no_grad():
        logits = merged(**inputs).logits
    expected = [rows[0]["probabilities"][merged.config.id2label[number]] for number in range(3)]
    assert logits[0].sigmoid().tolist() == pytest.approx(expected, abs=1e-4)
    peft = pytest.importorskip("peft")
    names = json.loads(Path("export/label_names.json").read_text())
    with_peft = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        "export", id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).logits, logits, rtol=0, atol=1e-5)
