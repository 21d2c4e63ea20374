"""The ways of users with pictures and texts of their own, from a folder or a table to models that others load."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.test_own_data import IMAGES, TEXTS
from tests.text_stand_ins import write_tiny_bert

pytestmark = pytest.mark.slow
CLASSES = ["dark", "light"]

PLAIN_TIMM = """
import sys, timm, torch, numpy as np
from PIL import Image
model = timm.create_model("local-dir:merged", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
for path in sys.argv[1:]:
    image = torch.from_numpy(np.array(Image.open(path))).float()[None, None] / 255
    with torch.no_grad():
        probabilities = model((image - config["mean"][0]) / config["std"][0]).softmax(-1)[0]
    print(path, model.pretrained_cfg["label_names"][int(probabilities.argmax())], *probabilities.tolist())
assert "asym_lightning" not in sys.modules
"""
PLAIN_TRANSFORMERS = """
import csv, sys, torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer
code = Path("exported/README.md").read_text().split("```python\\n")[1].split("```")[0]
exec(code.replace('folder = "."', 'folder = "exported"'))
opened = model.eval()
merged = AutoModelForSequenceClassification.from_pretrained("merged").eval()
tokenizer = AutoTokenizer.from_pretrained("merged")
assert opened.config.id2label == merged.config.id2label
for row in csv.DictReader(open("new.csv")):
    with torch.no_grad():
        tokens = tokenizer(row["text"], return_tensors="pt")
        first, second = (m(**tokens).logits.softmax(-1)[0] for m in (opened, merged))
    assert torch.allclose(first, second, atol=1e-5)
    print(row["key"], merged.config.id2label[int(second.argmax())], *second.tolist())
assert "asym_lightning" not in sys.modules
"""


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def same(rows, printed, names):
    """Whether rows of predictions are those that another program printed: what, its class, and probabilities."""
    for row, line in zip(rows, printed.splitlines(), strict=True):
        name, label, *probabilities = line.split()
        assert (row["id"], row["label"]) == (name, label)
        own = [float(row[f"probability_{name}"]) for name in names]
        assert own == pytest.approx(list(map(float, probabilities)), abs=1e-5)


def test_own_images(run, tmp_path):
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for image in range(20):
            pixels = random.integers(120 * number, 120 * number + 130, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{image}.png")
    config = {**IMAGES, "data": {**IMAGES["data"], "folder": "pictures", "augmentation": "none"}}
    config["trainer"] = {**IMAGES["trainer"], "max_epochs": 20}
    (tmp_path / "images.yaml").write_text(yaml.safe_dump(config))
    run("lightning", "fit", "--config", "images.yaml", "--test_after_fit", "true")
    run_folder = "runs/images/version_0"
    card_and_config = {"export": "exported", "merge": "merged"}
    assert "test/accuracy" in run("lightning", "test", "--config", "images.yaml", "--ckpt_path", run_folder)
    for command, output in card_and_config.items():
        run("asym-lightning", command, run_folder, "--output", output)
    (tmp_path / "pictures").rename(tmp_path / "loose")
    predict = ["predict", "--config", "images.yaml", "--data.predict", "loose", "--ckpt_path"]
    written = [tmp_path / run("lightning", *predict, source).split()[-1] for source in (run_folder, "exported")]
    rows = rows_of(written[0])
    assert rows == rows_of(written[1]) and len(rows) == 40
    assert sum(row["label"] == Path(row["id"]).parent.name for row in rows) >= 36
    same(rows, run("python", "-c", PLAIN_TIMM, *(row["id"] for row in rows)), CLASSES)


def test_own_texts(run, tmp_path):
    write_tiny_bert(tmp_path / "encoder", initializer_range=0.5)  # weights with which it tells texts apart
    kinds = {"cat": "the cat sat .", "dog": "a dog ran far .", "mat": "is a mat ?"}
    rows = [f"{text},{label}" for label, text in kinds.items()] * 8
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    new = [f"{key},{text}" for key, text in zip("abc", kinds.values(), strict=True)]
    (tmp_path / "new.csv").write_text("\n".join(["key,text", *new]) + "\n")
    config = {**TEXTS, "trainer": {**TEXTS["trainer"], "max_epochs": 40}}
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(config))
    run("lightning", "fit", "--config", "texts.yaml")
    run_folder = "runs/texts/version_0"
    test = ["test", "--config", "texts.yaml", "--data.test", "train.csv", "--ckpt_path", run_folder]
    assert "test/accuracy" in run("lightning", *test)
    for command, output in {"export": "exported", "merge": "merged"}.items():
        run("asym-lightning", command, run_folder, "--output", output)
    (tmp_path / "train.csv").unlink()
    predict = ["predict", "--config", "texts.yaml", "--data.predict", "new.csv", "--data.id_column", "key"]
    written = [tmp_path / run("lightning", *predict, "--ckpt_path", s).split()[-1] for s in (run_folder, "exported")]
    rows = rows_of(written[0])
    assert rows == rows_of(written[1])
    assert [row["label"] for row in rows] == list(kinds)
    same(rows, run("python", "-c", PLAIN_TRANSFORMERS), kinds)
