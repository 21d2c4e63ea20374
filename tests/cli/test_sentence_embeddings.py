"""Embeddings through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import csv
import json
import random
from pathlib import Path

import pytest
import torch
import transformers as tf

from asym_lightning.cli import main
from asym_lightning.modules.texts.sentence_folder import SentenceLayout
from tests.text_stand_ins import WORDS, write_tiny_bert

CONFIG = Path(__file__).parents[2] / "configs" / "embeddings" / "nli_stsb.yaml"
LEARN = ["--model.adapter.targets=all-linear", "--model.optimizer.lr=0.006", "--trainer.max_epochs=10"]
LAYOUT = SentenceLayout("mean", normalize=False)  # what the backbone comes with; neither the config's nor the default


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_rows(path, columns, rows):
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_texts():
    """What a text means is its first word alone, and the others are chance."""
    chance = random.Random(0)
    first = WORDS[:10]
    text = lambda word: " ".join([word, *chance.choices(WORDS, k=4)])  # noqa: E731
    pairs = [(word, *chance.sample([w for w in first if w != word], 1)) for word in chance.choices(first, k=200)]
    triplets = [(text(word), text(word), text(other)) for word, other in pairs]
    scored = [(text(a), text(b), 5 * (a == b)) for a, b in ((w, chance.choice([w, o])) for w, o in pairs[:60])]
    write_rows("train.csv", ("anchor", "positive", "negative"), triplets)
    write_rows("test.csv", ("sentence1", "sentence2", "score"), scored)
    write_rows("pairs.csv", ("anchor", "positive"), [(text(word), text(word)) for word in first])
    return scored


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers_and_in_sentence_transformers(capsys):
    scored = write_texts()
    backbone = write_tiny_bert(Path("encoder"), hidden_size=32)
    LAYOUT.write(32, backbone)
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--model.backbone", str(backbone), *quiet, LEARN[0]]
    options += ["--data.train=train.csv", "--data.val=test.csv", "--data.test=test.csv", "--data.largest_score=5"]
    options += ["--model.pooling=null", "--model.normalize=null", "--model.chunk_size=16"]
    options += ["--data.loader.batch_size=20"]
    with pytest.warns(UserWarning, match="the adapter is fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, *LEARN[1:]]) == 0
    after = scores(capsys)
    assert before["test/spearman"] < 0.5 and after["test/spearman"] > 0.75
    run = Path("runs/nli_stsb/version_1")
    retrieval = ["--data.test=pairs.csv", "--data.val=null", "--model.evaluation=retrieval", "--model.recall_at=[1,3]"]
    assert main(["test", *options, *retrieval, "--ckpt_path", str(run)]) == 0
    assert scores(capsys)["test/recall_at_3"] > 0.7  # of ten words

    Path("train.csv").unlink()
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=test.csv"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/nli_stsb").glob("*/predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(number) for number in range(60)]
    expected = torch.tensor([row["embedding"] for row in rows])

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    tokenizer = tf.AutoTokenizer.from_pretrained("merge")
    merged = tf.AutoModel.from_pretrained("merge", add_pooling_layer=False).eval()
    inputs = tokenizer([text for text, _, _ in scored], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = LAYOUT.vectors(merged(**inputs).last_hidden_state, inputs["attention_mask"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert SentenceLayout.of("merge", None, None) == SentenceLayout.of("export", None, None) == LAYOUT

    peft = pytest.importorskip("peft")
    base = tf.AutoModel.from_pretrained(str(backbone), add_pooling_layer=False)
    with torch.no_grad():
        states = peft.PeftModel.from_pretrained(base, "export").eval()(**inputs).last_hidden_state
    found = LAYOUT.vectors(states, inputs["attention_mask"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer("merge", device="cpu").encode([text for text, _, _ in scored])
    torch.testing.assert_close(torch.tensor(theirs), expected, rtol=0, atol=1e-5)
