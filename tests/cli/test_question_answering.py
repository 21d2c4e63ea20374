"""Questions on texts through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers as tf

from asym_lightning.cli import main
from tests.text_stand_ins import write_tiny_bert

CONFIG = Path(__file__).parents[2] / "configs" / "questions" / "squad.yaml"
VERSION_2 = CONFIG.parent / "overlays" / "squad_v2.yaml"
# What is asked for by each word; nothing answers the last.
ASKED = {"the": "cat sat", "a": "dog", "not": None}
OTHERS = ["on", "is", "was", ".", "mat"]
LEARN = ["--model.adapter.targets=all-linear", "--model.optimizer.lr=0.02", "--trainer.max_epochs=6"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_questions(path, count, seed):
    chance = random.Random(seed)
    paragraphs = []
    for number in range(count):
        parts = [*chance.choices(OTHERS, k=chance.randint(4, 16)), "cat sat", "dog"]
        chance.shuffle(parts)
        context, asked = " ".join(parts), chance.choice(list(ASKED))
        answer = ASKED[asked]
        answers = [] if answer is None else [{"text": answer, "answer_start": f" {context} ".index(f" {answer} ")}]
        question = {"id": f"q{number}", "question": f"{asked} ?", "answers": answers, "is_impossible": answer is None}
        paragraphs.append({"context": context, "qas": [question]})
    Path(path).write_text(json.dumps({"version": "v2.0", "data": [{"title": "words", "paragraphs": paragraphs}]}))


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    backbone = str(write_tiny_bert(Path("encoder"), hidden_size=32))
    for name, count in (("train", 200), ("test", 30)):
        write_questions(f"{name}.json", count, seed=name)
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--config", str(VERSION_2), "--model.backbone", backbone, *quiet]
    options += ["--data.train=train.json", "--data.val=test.json", "--data.test=test.json"]
    options += ["--data.max_length=16", "--data.stride=4", *LEARN[:1]]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, *LEARN[1:]]) == 0
    after = scores(capsys)
    assert before["test/f1"] < 0.5 and after["test/f1"] > 0.8 and after["test/exact_match"] > 0.7
    run = Path("runs/squad/version_1")
    assert main(["predict", *options, "--ckpt_path", str(run), "--data.max_length=40"]) == 0
    (file,) = Path("runs/squad").glob("*/answers.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"q{number}" for number in range(30)]
    assert sum(row["answer"] == (row["targets"] or [""])[0] for row in rows) > 20

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    plain = tf.AutoTokenizer.from_pretrained("merge")
    merged = tf.AutoModelForQuestionAnswering.from_pretrained("merge").eval()
    articles = json.loads(Path("test.json").read_text())["data"][0]["paragraphs"]
    inputs = plain(articles[0]["qas"][0]["question"], articles[0]["context"], return_tensors="pt")
    with torch.no_grad():
        found = merged(**inputs)
    start, end = found.start_logits[0], found.end_logits[0]
    at = (inputs["token_type_ids"][0] == 1).nonzero().flatten()[:-1]  # of the text, without the separator
    spans = {(i, j): start[i] + end[j] for i in at.tolist() for j in at.tolist() if i <= j}
    (i, j), best = max(spans.items(), key=lambda span: span[1])
    assert float(best - start[0] - end[0]) == pytest.approx(rows[0]["score"], abs=1e-4)
    assert rows[0]["answer"] in ("", plain.decode(inputs["input_ids"][0, i : j + 1]))
    peft = pytest.importorskip("peft")
    assert "PeftModel.from_pretrained(model, folder)" in Path("export/README.md").read_text()
    base = tf.AutoModelForQuestionAnswering.from_pretrained(backbone)
    with_peft = peft.PeftModel.from_pretrained(base, "export").eval()
    with torch.no_grad():
        torch.testing.assert_close(with_peft(**inputs).end_logits, found.end_logits, rtol=0, atol=1e-5)
