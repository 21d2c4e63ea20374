"""Words with tags through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers as tf

from asym_lightning.cli import main
from tests.text_stand_ins import WORDS, write_tiny_bert

CONFIG = Path(__file__).parents[2] / "configs" / "tokens" / "conll2003.yaml"
LEARN = ["--model.adapter.targets=all-linear", "--model.optimizer.lr=0.03", "--trainer.max_epochs=8"]
# Entities of one word and of two; "cat" is one of another type, or none, by what is before it.
PHRASES = {
    "the cat": ("B-PET", "I-PET"), "a cat": ("O", "O"), "dog": ("B-PET",), "on mat": ("O", "B-PLACE"), "far": ("O",)
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_sentences(path, count, seed):
    chance = random.Random(seed)
    lines = []
    for _ in range(count):
        for phrase in chance.choices(list(PHRASES), k=5):
            lines += [f"{word} {tag}" for word, tag in zip(phrase.split(), PHRASES[phrase], strict=True)]
        lines.append("")
    Path(path).write_text("\n".join(lines))


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    assert set(" ".join(PHRASES).split()) <= set(WORDS)
    backbone = str(write_tiny_bert(Path("encoder"), hidden_size=32))
    for name, count in (("train", 120), ("val", 20), ("test", 20)):
        write_sentences(f"{name}.conll", count, seed=name)
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--model.backbone", backbone, *quiet, "--data.loader.batch_size=16"]
    options += [f"--data.{name}={name}.conll" for name in ("train", "val", "test")]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, *LEARN]) == 0
    after = scores(capsys)
    assert before["test/f1"] < 0.5 and after["test/f1"] > 0.9
    run = Path("runs/conll2003/version_1")
    options += LEARN[:1]
    assert main(["test", *options, "--ckpt_path", str(run)]) == 0
    assert scores(capsys)["test/f1"] == pytest.approx(after["test/f1"], abs=1e-4)

    Path("train.conll").unlink()  # what was trained on need not be there
    Path("new.jsonl").write_text(json.dumps({"text": "a dog  sat on mat"}) + "\n")
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=new.jsonl"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/conll2003").glob("*/predictions.jsonl")
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row["words"] == ["a", "dog", "sat", "on", "mat"]
    assert row["entities"] == [{"start": 2, "end": 5, "label": "PET"}, {"start": 14, "end": 17, "label": "PLACE"}]
    assert row["labels"] == ["O", "B-PET", "O", "O", "B-PLACE"]

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    tokenizer = tf.AutoTokenizer.from_pretrained("merge")
    merged = tf.AutoModelForTokenClassification.from_pretrained("merge").eval()
    inputs = tokenizer("a dog sat on mat", return_tensors="pt")
    with torch.no_grad():
        logits = merged(**inputs).logits
    assert [merged.config.id2label[n] for n in logits[0, 1:-1].argmax(dim=-1).tolist()] == row["labels"]
    peft = pytest.importorskip("peft")
    names = json.loads(Path("export/label_names.json").read_text())
    assert "AutoPeftModelForTokenClassification" in Path("export/README.md").read_text()
    with_peft = peft.AutoPeftModelForTokenClassification.from_pretrained(
        "export", id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).logits, logits, rtol=0, atol=1e-5)
