"""ObjectDetector: its loss, what it finds, and what it writes."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
import transformers as tf
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.data import DetectionDataModule, LoaderOptions
from asym_lightning.modules import ObjectDetector
from asym_lightning.modules.images.detections import found
from tests.image_stand_ins import write_boxed_images

pytest.importorskip("pycocotools")
pytest.importorskip("scipy")
NAMES = ["blue", "red"]
YOLOS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
         "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 5, "hidden_dropout_prob": 0.0,
         "attention_probs_dropout_prob": 0.0}  # fmt: skip


def detr():
    backbone = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
                               out_features=["stage2"])  # fmt: skip
    return tf.DetrForObjectDetection(tf.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, d_model=16, dropout=0.0,
        encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2,
        decoder_ffn_dim=16, num_queries=5, num_labels=2,
    ))  # fmt: skip


def yolos():
    return tf.YolosForObjectDetection(tf.YolosConfig(**YOLOS, num_labels=2))


def made(backbone):
    torch.manual_seed(0)
    module = ObjectDetector(backbone, NAMES, AdapterConfig(rank=2, targets="all-linear"))
    module.configure_model()
    return module


def batch():
    targets = [
        {"boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    return torch.randn(2, 3, 32, 32), targets


@pytest.mark.parametrize("make", [detr, yolos])
def test_models_of_the_family_learn_by_their_own_loss(make):
    module, (images, targets) = made(make()), batch()
    module.eval()
    output = module.step((images, targets))
    labels = [{"boxes": t["boxes"], "class_labels": t["labels"]} for t in targets]
    torch.testing.assert_close(output.loss, module.backbone(images, labels=labels).loss)
    output.loss.backward()
    assert any(a.B.grad is not None and a.B.grad.any() for a in adapters_by_name(module.backbone).values())
    heads = {"class_labels_classifier", "bbox_predictor"}
    own = {name: p for name, p in module.backbone.named_parameters() if "adapters" not in name.split(".")}
    assert {name for name, p in own.items() if p.requires_grad} == {n for n in own if n.split(".")[0] in heads}
    assert [len(boxes["scores"]) for boxes in output.predictions] == [5, 5]


def test_boxes_are_found_by_the_likeliest_class_or_by_each_class():
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 0.5], [0.25, 0.25, 0.5, 0.5]]])
    excluding = SimpleNamespace(logits=torch.tensor([[[0.0, 1.0, 3.0], [4.0, 0.0, 0.0]]]), pred_boxes=boxes)
    (likeliest,) = found(excluding, 2)
    assert likeliest["labels"].tolist() == [0, 1]
    assert likeliest["boxes"].tolist() == [[0.0, 0.0, 0.5, 0.5], [0.0, 0.25, 1.0, 0.75]]
    torch.testing.assert_close(likeliest["scores"][0], torch.tensor([4.0, 0, 0]).softmax(0)[0])
    single = SimpleNamespace(logits=torch.tensor([[[2.0, 1.0], [-4.0, -3.0]]]), pred_boxes=boxes)
    (each,) = found(single, 2)
    assert each["labels"].tolist() == [0, 1] and each["boxes"][0].tolist() == each["boxes"][1].tolist()
    assert found(single, 2, order=[1, 0])[0]["labels"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="returns no boxes with 2 classes"):
        found(SimpleNamespace(logits=torch.zeros(1, 2, 7), pred_boxes=boxes), 2)


def test_the_precision_is_that_of_what_is_there():
    metrics = made(yolos()).build_metrics()
    _, targets = batch()
    right = {"boxes": torch.tensor([[0.4, 0.3, 0.6, 0.7]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    assert metrics([right, nothing], targets) == {"map": 1, "map_50": 1}
    metrics.reset()
    metrics.update([nothing], targets[1:])
    with pytest.warns(UserWarning, match="is undefined, for there is no box to find: reported as 0"):
        assert metrics.compute() == {"map": 0, "map_50": 0}


def test_what_the_models_losses_need_is_named_before_training(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else name)
    needs = r"`ObjectDetector` needs scipy: pip install 'asym-lightning\[detection\]'"
    with pytest.raises(ModuleNotFoundError, match=needs):
        made(yolos()).build_metrics()


def test_without_a_box_nothing_is_nan_and_a_run_goes_on(tmp_path):
    images, targets = batch()
    data = DataLoader([(images, [targets[1]] * 2)] * 2, batch_size=None)
    watching = EarlyStopping("val/map")
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, callbacks=[watching],
                      enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.warns(UserWarning, match="is undefined, for there is no box to find: reported as 0"):
        trainer.fit(made(yolos()), data, data)
    assert trainer.global_step == 4 and all(value.isfinite() for value in trainer.callback_metrics.values())


def test_a_run_evaluates_and_writes_boxes_in_pixels(tmp_path):
    file = write_boxed_images(tmp_path / "boxes", count=4, size=64)
    data = DetectionDataModule(train=file, val=file, test=file, image_size=32, loader=LoaderOptions(2, 2))
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
                      enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path)  # fmt: skip
    module = made(yolos())
    module.threshold = 0.0
    trainer.fit(module, data)
    assert {"val/map", "val/map_50", "val/loss"} <= set(trainer.callback_metrics)
    found_boxes = [boxes for of_batch in trainer.predict(module, data) for boxes in of_batch]
    rows = [json.loads(line) for line in (tmp_path / "detections.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(tmp_path / "boxes" / f"{number}.png") for number in range(4)]
    left, top, right, bottom = (found_boxes[0]["boxes"][0] * 64).tolist()
    assert rows[0]["objects"][0]["box"] == pytest.approx([left, top, right - left, bottom - top], abs=1e-3)
    assert rows[0]["objects"][0]["label"] == NAMES[int(found_boxes[0]["labels"][0])]
