"""Any backbone, mixup, smoothing and frozen layers of the image classifier."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import AdapterConfig, adapters_by_name
from asym_lightning.modules import BackboneOptions, ImageClassifier
from asym_lightning.modules.images.mixup import mixed

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture(autouse=True)
def seed():
    seed_everything(0, verbose=False)


def images(size, channels=3, count=4):
    return DataLoader(TensorDataset(torch.randn(count, channels, size, size), torch.arange(count) % 2), batch_size=2)


@pytest.mark.parametrize(
    ("name", "size", "args", "targets"),
    [
        ("vit_tiny_patch16_224", 32, {"img_size": 32, "depth": 1}, ["q", "v"]),
        ("deit_tiny_patch16_224", 32, {"img_size": 32, "depth": 1}, ["q", "v"]),
        ("beit_base_patch16_224", 32, {"img_size": 32, "depth": 1, "embed_dim": 48, "num_heads": 3}, ["q", "v"]),
        ("eva02_tiny_patch14_224", 28, {"img_size": 28, "depth": 1}, ["q", "v"]),
        ("swin_tiny_patch4_window7_224", 56, {"img_size": 56, "depths": (1, 1), "embed_dim": 24}, ["q", "v"]),
        ("swinv2_tiny_window8_256", 64, {"img_size": 64, "depths": (1, 1), "embed_dim": 24}, ["q", "v"]),
        ("convnext_atto", 32, {"depths": (1,) * 4, "dims": (16,) * 4}, ["mlp"]),
    ],
    ids=["vit", "deit", "beit", "eva02", "swin", "swinv2", "convnext"],
)
def test_every_adapter_of_any_backbone_trains(name, size, args, targets):
    module = ImageClassifier(
        name,
        2,
        AdapterConfig(rank=2, targets=targets),
        backbone_options=BackboneOptions(pretrained=False, model_args=args),
    )
    module.configure_model()
    for layer in module.modules():
        if isinstance(layer, torch.nn.LayerNorm):  # SwinV2 starts its own at 0, which lets no gradient through
            torch.nn.init.ones_(layer.weight)
    before = {key: adapter.B.detach().clone() for key, adapter in adapters_by_name(module.backbone).items()}
    Trainer(accelerator="cpu", max_steps=2, **QUIET).fit(module, images(size))
    after = adapters_by_name(module.backbone)
    assert before and all(not torch.equal(before[key], after[key].B) for key in before)


def test_mixup_is_the_mean_of_the_losses_weighted_by_the_share():
    module = ImageClassifier("vit_digits", 10, mixup=0.4, label_smoothing=0.1)
    module.configure_model()
    batch, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    seed_everything(1, verbose=False)
    loss = module.step((batch, labels)).loss
    seed_everything(1, verbose=False)
    mixtures, partner, share = mixed(batch, 0.4)
    assert torch.allclose(mixtures, share * batch + (1 - share) * batch[partner], atol=1e-6)
    log_probabilities = module(mixtures).log_softmax(-1)
    one_hot = torch.nn.functional.one_hot
    target = share * one_hot(labels, 10) + (1 - share) * one_hot(labels[partner], 10)
    target = 0.9 * target + 0.1 / 10
    assert torch.allclose(loss, -(target * log_probabilities).sum(-1).mean(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixup_draws_the_same_share_where_half_precision_is_the_default(dtype):
    seed_everything(0, verbose=False)
    _, _, expected = mixed(torch.zeros(3, 2), 0.4)
    seed_everything(0, verbose=False)
    torch.set_default_dtype(dtype)
    try:
        _, _, share = mixed(torch.zeros(3, 2), 0.4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert share == expected


def test_evaluation_knows_neither_mixup_nor_smoothing():
    module = ImageClassifier("vit_digits", 10, mixup=0.4, label_smoothing=0.1).eval()
    module.configure_model()
    batch, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    expected = torch.nn.functional.cross_entropy(module(batch), labels)
    assert torch.allclose(module.step((batch, labels)).loss, expected)


def test_frozen_layers_stay_and_the_others_train():
    module = ImageClassifier("vit_digits", 2, train_backbone=True, frozen_layers=["patch_embed", "blocks.0"])
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    Trainer(accelerator="cpu", max_steps=1, **QUIET).fit(module, images(8, channels=1))
    for name, p in module.named_parameters():
        is_frozen = name.startswith(("backbone.patch_embed.", "backbone.blocks.0."))
        assert p.requires_grad != is_frozen
        assert torch.equal(p, before[name]) == is_frozen, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": -0.1}, r"`label_smoothing` must be in \[0, 1\], not -0.1"),
        ({"mixup": -1.0}, "`mixup` must be at least 0, not -1.0"),
        ({"frozen_layers": ["blocks.0"]}, "`frozen_layers` are for full fine-tuning"),
        (
            {"frozen_layers": ["stem"], "train_backbone": True},
            "entry 'stem' matches no layer; the outermost are patch_",
        ),
    ],
)
def test_bad_argument_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier("vit_digits", 2, **options).configure_model()
