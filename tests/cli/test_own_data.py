"""Images and texts of one's own, from a folder or a file to predictions with names, and to files that others load."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
import yaml

from asym_lightning.cli import main
from asym_lightning.modules import ImageClassifier
from tests.image_stand_ins import write_images
from tests.text_stand_ins import write_tiny_bert

CLASSES = ["ant", "bee", "cat"]
OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
TRAINER = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
IMAGES = {
    "model": {
        "class_path": "ImageClassifier", "backbone": "vit_digits", "adapter": {"rank": 2}, "optimizer": OPTIMIZER,
    },
    "data": {
        "class_path": "ImageFolderDataModule", "folder": "animals", "image_size": 8, "mean": [0.5], "std": [0.5],
        "loader": {"num_workers": 0},
    },
    "trainer": TRAINER,
}  # fmt: skip
TEXTS = {
    "model": {
        "class_path": "TextClassifier", "backbone": "encoder", "adapter": {"rank": 2, "targets": "all-linear"},
        "optimizer": OPTIMIZER,
    },
    "data": {
        "class_path": "TextFilesDataModule", "train": "train.csv", "val": "train.csv", "text_columns": "text",
        "cache_dir": "cache",
    },
    "trainer": TRAINER,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images():
    write_images(Path("animals"), CLASSES, per_class=4, size=8)
    Path("images.yaml").write_text(yaml.safe_dump(IMAGES))
    assert main(["fit", "--config", "images.yaml", "--test_after_fit=true"]) == 0
    return Path("runs/images/version_0")


@pytest.fixture
def texts():
    write_tiny_bert(Path("encoder"))
    rows = ["the cat sat .,cat", "a dog ran far .,dog", "is a mat ?,mat"] * 2
    Path("train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    Path("new.csv").write_text("key,text\na,the cat\nb,a dog\n")
    Path("texts.yaml").write_text(yaml.safe_dump(TEXTS))
    assert main(["fit", "--config", "texts.yaml"]) == 0
    return Path("runs/texts/version_0")


def predict(capsys, *options):
    capsys.readouterr()
    assert main(["predict", *options]) == 0
    path = Path(capsys.readouterr().out.split()[-1])
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_snippet(folder):
    """Run the code on a model card, and return its model."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    namespace = {}
    exec(code.replace('folder = "."', f"folder = {str(folder)!r}"), namespace)
    return namespace["model"].eval()


def test_images_are_predicted_by_name_from_a_run_an_adapter_and_an_export(images, capsys):
    assert main(["export", str(images), "--output", "exported"]) == 0
    Path("animals").rename("elsewhere")  # what was trained on need not be there
    loose = ["--config", "images.yaml", "--data.predict", "[elsewhere/bee, elsewhere/cat/0.png]"]
    sources = [str(images), "best", str(images / "adapter"), "exported"]
    rows = [predict(capsys, *loose, "--ckpt_path", source) for source in sources]
    assert [row["id"] for row in rows[0]] == [*(f"elsewhere/bee/{n}.png" for n in range(4)), "elsewhere/cat/0.png"]
    assert list(rows[0][0]) == ["id", "label", *(f"probability_{name}" for name in CLASSES)]
    assert rows[1:] == rows[:1] * 3
    assert main(["test", "--config", "images.yaml", "--data.folder", "elsewhere", "--ckpt_path", str(images),
                 "--trainer.fast_dev_run=true"]) == 0  # fmt: skip
    as_json = predict(capsys, *loose, "--ckpt_path", "exported", "--predictions", "p.jsonl")
    assert [row["label"] for row in as_json] == [row["label"] for row in rows[0]]


def test_names_of_images_go_to_the_merged_config_and_the_card_whose_code_runs(images):
    pytest.importorskip("peft")
    for command in ("export", "merge"):
        assert main([command, str(images), "--output", f"{command}ed"]) == 0
    merged = timm.create_model("local-dir:mergeed", pretrained=True).eval()
    assert json.loads(Path("mergeed/config.json").read_text())["label_names"] == CLASSES
    assert list(merged.pretrained_cfg["label_names"]) == CLASSES
    card = Path("exported/README.md").read_text()
    for line in ("| data | `ImageFolderDataModule`: animals |", "| classes | ant, bee, cat |", "| test/accuracy | 0."):
        assert line in card
    best = next(images.glob("checkpoints/*.ckpt"))
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = ImageClassifier.load_from_checkpoint(best, weights_only=True).eval()(x)
        for model in (merged, run_snippet(Path("exported").resolve())):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


def test_texts_are_predicted_by_name_without_the_file_of_training(texts, capsys):
    Path("train.csv").unlink()
    new = ["--config", "texts.yaml", "--data.predict", "new.csv", "--data.id_column", "key"]
    rows = [predict(capsys, *new, "--ckpt_path", source) for source in (str(texts), str(texts / "adapter"))]
    assert [row["id"] for row in rows[0]] == ["a", "b"]
    assert list(rows[0][0]) == ["id", "label", "probability_cat", "probability_dog", "probability_mat"]
    assert rows[1] == rows[0]


def test_an_exported_adapter_of_texts_opens_with_its_classes(texts):
    pytest.importorskip("peft")
    assert main(["export", str(texts), "--output", "exported"]) == 0
    assert "AutoPeftModelForSequenceClassification" in Path("exported/README.md").read_text()
    model = run_snippet(Path("exported").resolve())
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "mat"} and model.config.num_labels == 3
    assert json.loads(Path("exported/label_names.json").read_text()) == ["cat", "dog", "mat"]


def test_an_evaluation_without_a_checkpoint_says_what_is_fresh_and_what_to_give(images, capsys):
    options = ["--config", "images.yaml"]
    with pytest.warns(
        UserWarning, match=r"the adapter and the head are fresh.*`best`, `last`, a run's folder or a file, "
    ):
        assert main(["test", *options]) == 0
    with pytest.warns(UserWarning, match=r"no `--ckpt_path`: the head is fresh"):
        assert main(["validate", *options, "--model.adapter", "null"]) == 0
    assert main(["test", "--config", "quickstart", "--ckpt_path", "last"]) == 1
    assert "there is no last checkpoint yet: no run in 'runs/quickstart' wrote any" in capsys.readouterr().err


def test_training_the_head_alone_is_said(images, capsys, caplog):
    with caplog.at_level("INFO"):
        assert main(["fit", "--config", "images.yaml", "--model.adapter", "null"]) == 0
    assert "trains the head alone, for there is no `adapter`" in caplog.text


def test_a_run_goes_on_from_its_folder(images, capsys):
    assert main(["fit", "--config", "images.yaml", "--ckpt_path", str(images), "--trainer.max_epochs", "2"]) == 0
    assert [path.name for path in Path("runs/images").iterdir()] == ["version_0"]
    assert main(["fit", "--config", "images.yaml", "--ckpt_path", str(images / "adapter")]) == 1
    assert "is an adapter, which lacks what training goes on from" in capsys.readouterr().err
    (images / "checkpoints").rename("kept")
    assert main(["fit", "--config", "images.yaml", "--ckpt_path", str(images)]) == 1
    assert f"the run '{images}' has no checkpoint" in capsys.readouterr().err
