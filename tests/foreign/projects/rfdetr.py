"""RF-DETR: its module, data and Trainer on `pytorch_lightning`, with its own callbacks, an average among them."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytorch_lightning
from life import Project
from PIL import Image
from rfdetr import RFDETR
from rfdetr.config import RFDETRNanoConfig, TrainConfig
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer

SIZE = 64


@functools.cache
def images() -> tempfile.TemporaryDirectory:
    """Rectangles of two kinds, as Roboflow's exports have them."""
    folder = tempfile.TemporaryDirectory()
    draw = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        files, boxes = [], []
        home = Path(folder.name, split)
        home.mkdir()
        for number in range(4):
            pixels = draw.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
            kind, (x, y) = number % 2, draw.integers(4, 24, 2).tolist()
            pixels[y : y + 30, x : x + 30] = 255 * kind
            Image.fromarray(pixels).save(home / f"{number}.png")
            files.append({"id": number, "file_name": f"{number}.png", "height": SIZE, "width": SIZE})
            box = {"bbox": [x, y, 30, 30], "area": 900, "iscrowd": 0, "category_id": kind, "image_id": number}
            boxes.append({"id": number, **box})
        kinds = [{"id": i, "name": name, "supercategory": "none"} for i, name in enumerate(["dark", "light"])]
        content = {"info": {}, "licenses": [], "images": files, "annotations": boxes, "categories": kinds}
        (home / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


class Client(Project):
    lightning = pytorch_lightning
    backbone = "model.backbone"
    heads = ("model.class_embed", "model.bbox_embed")
    adapter = {"targets": ["q", "k", "v"]}

    def model_config(self):
        return RFDETRNanoConfig(
            pretrain_weights=None, num_classes=2, resolution=SIZE, positional_encoding_size=SIZE // 16, num_queries=8,
            num_select=8, group_detr=1, hidden_dim=32, sa_nheads=2, ca_nheads=2, device="cpu",
        )  # fmt: skip

    def train_config(self, folder):
        return TrainConfig(
            dataset_dir=images().name, output_dir=str(folder), epochs=2, batch_size=2, num_workers=0, lr=1e-3,
            lr_encoder=1e-3, multi_scale=False, tensorboard=False, accelerator="cpu", ema_tau=0,
        )  # fmt: skip

    def module(self):
        return RFDETRModelModule(self.model_config(), self.train_config("unused"))

    def other_data(self):
        return RFDETRDataModule(self.model_config(), self.train_config("unused"))

    def trainer(self, folder, *callbacks, **options):
        trainer = build_trainer(
            self.train_config(folder), self.model_config(), include_training_callbacks=bool(callbacks)
        )
        trainer.callbacks = [*trainer.callbacks, *callbacks]
        return trainer

    def fit(self, trainer, module, checkpoint):
        trainer.fit(module, self.other_data(), ckpt_path=checkpoint)
        return module

    def kept(self, module, folder):
        kept = self.module()
        kept.model = RFDETR.from_checkpoint(str(folder / "merged.ckpt")).model.model
        return kept
