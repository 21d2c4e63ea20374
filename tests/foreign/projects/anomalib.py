"""anomalib: reverse distillation, driven by its Engine, over images in a folder."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import ReverseDistillation
from life import Project
from PIL import Image


@functools.cache
def images() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    draw = np.random.default_rng(0)
    for kind in ("good", "bad"):
        Path(folder.name, kind).mkdir()
        for number in range(8):
            pixels = draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder.name, kind, f"{number}.png"))
    return folder


class Client(Project):
    backbone = "model.decoder"
    heads = ("bottleneck",)
    adapter = {"targets": ["all-conv"]}
    unused = ("model.bottleneck.conv4", "model.bottleneck.bn4")
    holds_objects = True

    def module(self):
        processor = ReverseDistillation.configure_pre_processor((64, 64))
        return ReverseDistillation("resnet18", pre_trained=False, pre_processor=processor, visualizer=False)

    def data(self):
        return Folder(
            "images", "good", images().name, "bad", train_batch_size=4, eval_batch_size=4, num_workers=0,
            val_split_mode="same_as_test", seed=0,
        )  # fmt: skip

    def trainer(self, folder, *callbacks, **options):
        return Engine(
            callbacks=[*callbacks], logger=False, accelerator="cpu", devices=1, max_epochs=2, default_root_dir=folder,
            enable_progress_bar=False,
        )  # fmt: skip

    def fit(self, trainer, module, checkpoint):
        trainer.fit(module, self.data(), ckpt_path=checkpoint)
        return module

    def test(self, trainer, module):
        return trainer.test(module, self.data(), verbose=False)

    def predict(self, trainer, module):
        return [(batch.pred_score, batch.anomaly_map) for batch in trainer.predict(module, datamodule=self.data())]
