"""Images that tables list through the command line: shipped configs learn, and what they lead to opens in timm."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from asym_lightning.cli import main
from asym_lightning.data.images.digits import load_digits_splits, rotate

CONFIGS = Path(__file__).parents[2] / "configs"
STROKES = {"round": "0689", "open": "2357", "even": "02468"}
QUIET = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
SMALL = ["--model.backbone=vit_digits", "--model.optimizer.lr=0.01", "--model.adapter.alpha=32",
         "--trainer.max_epochs=6", "--data.augmentation=none", "--data.image_size=8",
         "--data.mean=[0.5]", "--data.std=[0.5]",
         "--data.loader.num_workers=0"]  # fmt: skip


@pytest.fixture(autouse=True)
def digits_on_their_heads(tmp_path, monkeypatch):
    """Tables of upside-down digits: what they are made of, and how much they are."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for name, count in (("train", 400), ("val", 100), ("test", 100)):
        images, labels = load_digits_splits()[name]
        with Path(f"{name}.jsonl").open("w") as table:
            for number, (image, label) in enumerate(zip(rotate(images, 180)[:count], labels.tolist(), strict=False)):
                file = f"{name}{number}.png"
                Image.fromarray((image[0] * 255).byte().numpy()).save(Path("pictures") / file)
                classes = [stroke for stroke, digits in STROKES.items() if str(label) in digits]
                row = {"file": file, "labels": classes, "value": label / 10}
                table.write(json.dumps(row) + "\n")


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


def learnt(config, capsys):
    """The scores before and after, the run, and the options to predict a table without targets."""
    options = ["--config", str(CONFIGS / config), *SMALL, *QUIET, "--data.folder=pictures"]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options]) == 0
    after = scores(capsys)
    Path("train.jsonl").unlink()
    new = [{"file": json.loads(line)["file"]} for line in Path("test.jsonl").read_text().splitlines()]
    Path("new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in new))
    run = Path("runs") / Path(config).stem / "version_1"
    others = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=new.jsonl"]
    assert main(["predict", *options, *others, "--ckpt_path", str(run)]) == 0
    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    return before, after, run.parent


def merged_outputs():
    images = torch.stack([to_tensor(Image.open(Path("pictures") / f"test{number}.png")) for number in range(100)])
    with torch.no_grad():
        return timm.create_model("local-dir:merge", pretrained=True).eval()(images * 2 - 1)


@pytest.mark.slow
def test_images_of_several_classes(capsys):
    before, after, runs = learnt("labels/voc2007.yaml", capsys)
    assert after["test/map"] > 0.9 > before["test/map"] and after["test/loss"] < 0.7 * before["test/loss"]
    (file,) = runs.glob("*/predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [Path(row["id"]).name for row in rows] == [f"test{number}.png" for number in range(100)]
    names = json.loads(Path("merge/config.json").read_text())["label_names"]
    assert names == sorted(STROKES) == json.loads(Path("export/label_names.json").read_text())
    expected = torch.tensor([[row["probabilities"][name] for name in names] for row in rows])
    torch.testing.assert_close(merged_outputs().sigmoid(), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_values_of_images(capsys):
    before, after, runs = learnt("values/utkface.yaml", capsys)
    assert after["test/mae"] < 0.5 * before["test/mae"] and after["test/r2"] > 0.5
    (file,) = runs.glob("*/predictions.csv")
    with file.open() as table:
        found = torch.tensor([float(row["label"]) for row in csv.DictReader(table)])
    torch.testing.assert_close(merged_outputs()[:, 0], found, rtol=0, atol=1e-4)
