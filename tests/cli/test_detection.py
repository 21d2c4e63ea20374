"""Boxes of objects through the command line: a shipped config learns, and what it leads to opens in transformers."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from PIL import Image
from torchvision.transforms.functional import to_tensor

from asym_lightning.cli import main
from asym_lightning.modules.detections import corners
from tests.image_stand_ins import write_boxed_images

pytest.importorskip("pycocotools")
CONFIG = Path(__file__).parents[2] / "configs" / "detection" / "coco.yaml"
NAMES = ["blue", "red"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 2, "initializer_range": 0.1,
         "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
         "use_mid_position_embeddings": False}  # fmt: skip
LEARN = ["--model.adapter.targets=all-linear", "--model.adapter.alpha=32", "--model.optimizer.lr=0.005",
         "--trainer.max_epochs=80", "--trainer.gradient_clip_val=1.0", "--trainer.check_val_every_n_epoch=20",
         "--data.augmentation=none", "--data.loader.batch_size=16"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_boxes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, (split, count) in enumerate((("train", 64), ("val", 16), ("test", 16))):
        write_boxed_images(Path(split), count, seed=seed, in_quarters=True)


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


@pytest.mark.slow
def test_a_config_learns_and_its_model_opens_in_transformers(capsys):
    torch.manual_seed(0)
    backbone = tf.YolosModel(tf.YolosConfig(**SIZES))
    for name in ("position_embeddings", "detection_tokens", "cls_token"):  # zeros, which tell no place from another
        torch.nn.init.normal_(getattr(backbone.embeddings, name))
    backbone.save_pretrained("backbone")
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = ["--config", str(CONFIG), "--model.backbone=backbone", *quiet, "--data.loader.num_workers=0"]
    options += [f"--data.{split}={split}/boxes.json" for split in ("train", "val", "test")]
    options += ["--data.image_size=32", "--data.mean=[0.5,0.5,0.5]", "--data.std=[0.5,0.5,0.5]", *LEARN]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options]) == 0
    after = scores(capsys)
    assert after["test/loss"] < 0.5 * before["test/loss"] and after["test/map_50"] > 0.6 > before["test/map_50"]
    run = Path("runs/coco/version_1")
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=test", "--model.threshold=0"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/coco").glob("*/detections.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 16 and {found["label"] for row in rows for found in row["objects"]} == set(NAMES)

    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    merged = tf.AutoModelForObjectDetection.from_pretrained("merge").eval()
    assert merged.config.id2label == dict(enumerate(NAMES))
    images = torch.stack([to_tensor(Image.open(row["id"])) for row in rows]) * 2 - 1
    with torch.no_grad():
        output = merged(images)
    likeliest = output.logits.softmax(-1)[..., :-1].amax(-1)
    for row, of_image, boxes in zip(rows, likeliest, corners(output.pred_boxes), strict=True):
        first = row["objects"][0]
        left, top, right, bottom = (boxes[of_image.argmax()] * 32).tolist()
        assert first["score"] == pytest.approx(float(of_image.max()), abs=1e-4)
        assert first["box"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-2)
