"""Classes of pixels through the command line: a shipped config learns, and what it leads to opens elsewhere."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import transformers as tf
from PIL import Image
from torchvision.transforms.functional import to_tensor

from asym_lightning.cli import main
from asym_lightning.modules.images.timm_segmenter import create_timm_segmenter
from tests.image_stand_ins import write_masked_images
from tests.modules.images.test_segmentation_module import SEGFORMER

CONFIGS = Path(__file__).parents[2] / "configs" / "segmentation"
NAMES = ["ground", "square", "disc"]
LEARN = ["--model.optimizer.lr=0.01", "--trainer.max_epochs=8", "--data.loader.batch_size=8"]


@pytest.fixture(autouse=True)
def in_a_folder_of_shapes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, (split, count) in enumerate((("train", 64), ("val", 16), ("test", 16))):
        write_masked_images(Path("shapes") / split, count, seed=seed)


def scores(capsys):
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and line[0].startswith("test/")}


def predicted(capsys, *configs):
    """The masks that the model of a run predicts (images, height, width), and the images as it takes them."""
    quiet = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false"]
    options = [option for config in configs for option in ("--config", str(CONFIGS / config))]
    Path("as_it_is.yaml").write_text("model: {backbone: backbone, backbone_options: {model_args: null}}")
    options += ["--config", "as_it_is.yaml", *quiet]
    options += [f"--data.{split}=shapes/{split}" for split in ("train", "val", "test")]
    options += [f"--data.label_names={json.dumps(NAMES)}", "--data.image_size=32", "--data.loader.num_workers=0"]
    options += ["--data.mean=[0.5,0.5,0.5]", "--data.std=[0.5,0.5,0.5]"]
    with pytest.warns(UserWarning, match="the adapter and the head are fresh"):
        assert main(["test", *options]) == 0
    before = scores(capsys)
    assert main(["fit", *options, *LEARN]) == 0
    after = scores(capsys)
    assert after["test/mean_iou"] > 0.75 > before["test/mean_iou"] and after["test/loss"] < 0.5 * before["test/loss"]
    of_classes = [after[f"test/iou/{name}"] for name in NAMES]
    assert after["test/mean_iou"] == pytest.approx(np.mean(of_classes), abs=1e-3)
    run = Path("runs/voc2012/version_1")
    new = ["--data.train=null", "--data.val=null", "--data.test=null", "--data.predict=shapes/test/images"]
    assert main(["predict", *options, *new, "--ckpt_path", str(run)]) == 0
    (file,) = Path("runs/voc2012").glob("*/predictions.csv")
    with file.open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 16
    for command in ("export", "merge"):
        assert main([command, str(run), "--output", command]) == 0
    masks = torch.stack([torch.tensor(np.array(Image.open(file.parent / row["mask"]))) for row in rows])
    return masks, torch.stack([to_tensor(Image.open(row["id"])) for row in rows]) * 2 - 1


@pytest.mark.slow
def test_a_backbone_of_timm_with_a_decoder(capsys):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "depth": 4, "embed_dim": 48, "num_heads": 3}
    timm.models.save_for_hf(timm.create_model("vit_tiny_patch16_224", **sizes), "backbone", safe_serialization=True)
    masks, images = predicted(capsys, "voc2012.yaml")
    merged = create_timm_segmenter("merge", len(NAMES)).eval()
    with torch.no_grad():
        logits = F.interpolate(merged(images), (32, 32), mode="bilinear")
        encoder = timm.create_model("local-dir:merge", pretrained=True).eval()
        torch.testing.assert_close(encoder(images), merged.encoder(images))
    assert (logits.argmax(dim=1) == masks).float().mean() > 0.999
    code = Path("export/README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(code.replace('folder = "."', 'folder = "export"').replace("base = ...", 'base = "backbone"'), names)
    with torch.no_grad():
        torch.testing.assert_close(names["model"].eval()(images), merged(images), rtol=0, atol=1e-4)
    assert json.loads(Path("merge/config.json").read_text())["label_names"] == NAMES


@pytest.mark.slow
def test_a_segmenter_of_transformers(capsys):
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [32, 64], "decoder_hidden_size": 64, "patch_sizes": [3, 3], "strides": [2, 2]}
    tf.SegformerModel(tf.SegformerConfig(**{**SEGFORMER, **sizes})).save_pretrained("backbone")
    masks, images = predicted(capsys, "voc2012.yaml", "overlays/segformer_b0.yaml")
    merged = tf.AutoModelForSemanticSegmentation.from_pretrained("merge").eval()
    assert merged.config.id2label == dict(enumerate(NAMES))
    with torch.no_grad():
        logits = F.interpolate(merged(images).logits, (32, 32), mode="bilinear")
    assert (logits.argmax(dim=1) == masks).float().mean() > 0.999
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    base = tf.SegformerForSemanticSegmentation.from_pretrained("backbone", num_labels=3)
    with torch.no_grad():
        with_peft = peft.PeftModel.from_pretrained(base, "export").eval()(images).logits
        torch.testing.assert_close(with_peft, merged(images).logits, rtol=0, atol=1e-4)
