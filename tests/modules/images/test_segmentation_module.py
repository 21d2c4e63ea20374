"""SegmentationModule: its models, its loss, what it logs and what it predicts."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.data import LoaderOptions, SegmentationDataModule
from asym_lightning.modules import SegmentationModule
from asym_lightning.modules.images.mask_pictures import overview, palette, save_mask
from tests.image_stand_ins import write_masked_images

NAMES = ["ground", "square", "disc"]
SEGFORMER = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16],
             "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
             "decoder_hidden_size": 8, "num_labels": 3}  # fmt: skip


def segformer(**options):
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: number for number, name in enumerate(NAMES)}}
    return tf.SegformerForSemanticSegmentation(tf.SegformerConfig(**SEGFORMER, **names, **options))


def upernet():
    backbone = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4,
                             out_features=["stage1", "stage2"])  # fmt: skip
    config = tf.UperNetConfig(backbone_config=backbone, hidden_size=8, pool_scales=[1, 2], use_auxiliary_head=False,
                              num_labels=3)  # fmt: skip
    return tf.UperNetForSemanticSegmentation(config)


def mask2former():
    backbone = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
                             window_size=4, out_features=["stage1", "stage2", "stage3", "stage4"])  # fmt: skip
    config = tf.Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=8, num_queries=5,
        train_num_points=64, num_labels=3,
    )  # fmt: skip
    return tf.Mask2FormerForUniversalSegmentation(config)


def made(backbone="vit_digits", **options):
    torch.manual_seed(0)
    adapter = AdapterConfig(rank=2, targets=options.pop("targets", ["q", "v"]))
    module = SegmentationModule(backbone, NAMES, adapter, decoder_width=8, **options)
    module.configure_model()
    return module


def digits(side=8):
    return torch.randn(2, 1, side, side), torch.randint(0, 3, (2, side, side))


def test_loss_is_the_cross_entropy_of_pixels_that_count_at_the_size_of_the_images():
    module = made().eval()
    images, masks = digits()
    masks[0, :4] = -100
    output = module.step((images, masks))
    logits = F.interpolate(module(images), (8, 8), mode="bilinear")
    torch.testing.assert_close(output.loss, F.cross_entropy(logits, masks))
    assert torch.equal(output.predictions, logits.argmax(dim=1))


def test_a_batch_without_a_pixel_that_counts_has_a_loss_of_0_and_gradients_of_0():
    module = made()
    images, masks = digits()
    loss = module.step((images, torch.full_like(masks, -100))).loss
    loss.backward()
    assert loss == 0
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert gradients and all(not gradient.any() for gradient in gradients)


def test_the_decoder_trains_in_full_and_the_encoder_by_its_adapter():
    module = made()
    trained = {name for name, parameter in module.backbone.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained if "adapters" not in name} == {"decoder"}
    assert all(name.startswith("encoder.blocks.") for name in adapters_by_name(module.backbone))
    assert {f"decoder.{name}" for name, _ in module.backbone.decoder.named_parameters()} <= trained


@pytest.mark.parametrize(("make", "head"), [(segformer, "decode_head"), (upernet, "decode_head")])
def test_models_of_transformers_are_segmented_at_the_size_of_the_images(make, head):
    module = made(make()).eval()
    images, masks = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    logits = F.interpolate(module.backbone(images).logits, (32, 32), mode="bilinear")
    torch.testing.assert_close(module.step((images, masks)).loss, F.cross_entropy(logits, masks))
    assert adapters_by_name(module.backbone)
    parts = dict(module.backbone.named_children())
    assert all(p.requires_grad for p in parts[head].parameters())


def test_a_model_that_proposes_masks_learns_by_its_own_loss():
    module = made(mask2former(), targets="all-linear")
    images, masks = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
    masks[0, :16] = -100
    masks[1] = 1
    output = module.step((images, masks))
    output.loss.backward()
    assert output.predictions.shape == masks.shape and torch.isfinite(output.loss)
    assert any(
        adapter.B.grad is not None and adapter.B.grad.any() for adapter in adapters_by_name(module.backbone).values()
    )
    found = module.backbone(images)
    scores = torch.einsum(
        "bqc,bqhw->bchw", found.class_queries_logits.softmax(-1)[..., :-1], found.masks_queries_logits.sigmoid()
    )
    expected = F.interpolate(scores, (32, 32), mode="bilinear").argmax(dim=1)
    assert (module.predict_step(images, 0) == expected).float().mean() > 0.99
    masks[:] = -100
    assert torch.isfinite(module.step((images, masks)).loss)


def test_a_checkpoint_of_the_same_classes_keeps_its_head_and_its_order(tmp_path):
    segformer().save_pretrained(tmp_path / "same")
    module = SegmentationModule(
        str(tmp_path / "same"), ["disc", "ground", "square"], AdapterConfig(rank=2, targets=["q"])
    )
    module.configure_model()
    module.eval()
    images = torch.randn(1, 3, 32, 32)
    logits = F.interpolate(module.backbone(images).logits, (32, 32), mode="bilinear")
    assert torch.equal(module.predict_step(images, 0), logits[:, [2, 0, 1]].argmax(dim=1))


def test_a_model_of_something_else_is_refused():
    module = made(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)), targets=["0"])
    module.backbone.forward = lambda images: {"boxes": images}
    with pytest.raises(ValueError, match="a Sequential returns no classes of pixels"):
        module.step(digits(4))
    with pytest.raises(ValueError, match="`label_names` are neither given nor known"):
        SegmentationModule("vit_digits").configure_model()


def test_iou_of_classes_and_pictures_are_logged_and_masks_are_written(tmp_path):
    shapes = write_masked_images(tmp_path / "shapes", count=3, size=12)
    data = SegmentationDataModule(
        train=shapes, val=shapes, test=shapes, label_names=NAMES, image_size=8, mean=[0.5], std=[0.5],
        loader=LoaderOptions(2),
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=TensorBoardLogger(tmp_path, "runs"), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    module = made()
    trainer.fit(module, data)
    logged = trainer.callback_metrics
    of_classes = [float(value) for name, value in logged.items() if name.startswith("val/iou/")]
    assert float(logged["val/mean_iou"]) == pytest.approx(np.mean(of_classes), abs=1e-6)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(trainer.log_dir, {"images": 0}).Reload()
    assert events.Tags()["images"] == ["val/masks"]
    (shown,) = events.Images("val/masks")
    assert (shown.width, shown.height) == (3 * 8, 3 * 8)

    predictions = torch.cat(trainer.predict(module, data))
    for number in range(3):
        with Image.open(f"{trainer.log_dir}/masks/{number}.png") as image:
            found = np.array(image)
            assert image.mode == "P" and found.shape == (12, 12)
        assert set(np.unique(found)) <= set(predictions[number].unique().tolist())
    header, *rows = Path(trainer.log_dir, "predictions.csv").read_text().split()
    assert header == "id,mask" and [row.split(",")[1] for row in rows] == [f"masks/{n}.png" for n in range(3)]


def test_pictures_show_image_mask_and_prediction_side_by_side(tmp_path):
    masks = torch.tensor([[[0, 1], [2, -100]]])
    picture = overview(torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]), masks, masks.clamp(min=0))
    assert picture.shape == (2, 6, 3) and picture.dtype == np.uint8
    colours = np.array(palette()).reshape(-1, 3)
    assert np.array_equal(picture[:, 2:4], [[colours[0], colours[1]], [colours[2], [255] * 3]])
    assert picture[0, 1].tolist() == [255] * 3 and picture[0, 0].tolist() == [0] * 3
    save_mask(masks[0].clamp(min=0), tmp_path / "a" / "mask.png", (4, 4))
    with Image.open(tmp_path / "a" / "mask.png") as image:
        assert np.array_equal(np.array(image)[::2, ::2], [[0, 1], [2, 0]])
