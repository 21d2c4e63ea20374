from functools import partial

import lightning as L
import pytest
import timm
import torch

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DigitsDataModule
from asym_lightning.modules import BackboneOptions, ImageClassifier


def fit(tmp_path, module, **kwargs):
    defaults = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path}
    trainer = L.Trainer(accelerator="cpu", **{**defaults, **quiet, **kwargs})
    trainer.fit(module, DigitsDataModule())
    return trainer


@pytest.fixture(autouse=True)
def seed():
    L.seed_everything(0, verbose=False)


@pytest.mark.parametrize(
    ("adapter", "train_backbone", "num_trained"),
    [
        (AdapterConfig(rank=8), False, 6 * 3 * 96 * 8 + 970),
        (None, False, 970),
        (None, True, 674_410),
    ],
    ids=["adapter", "head alone", "everything"],
)
def test_each_arm_trains_what_it_says(tmp_path, adapter, train_backbone, num_trained):
    module = ImageClassifier("vit_digits", 10, adapter, train_backbone)
    module.configure_model()
    before = {name: p.clone() for name, p in module.named_parameters()}
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == num_trained
    fit(tmp_path, module)
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name


def test_predictions_are_probabilities_and_need_no_labels():
    module = ImageClassifier("vit_digits", 10).eval()
    module.configure_model()
    images = torch.randn(4, 1, 8, 8)
    probabilities = module.predict_step((images, torch.zeros(4)), 0)
    assert torch.allclose(probabilities.sum(-1), torch.ones(4))
    assert torch.equal(probabilities, module.predict_step(images, 0))
    assert torch.allclose(probabilities, module(images).exp() / module(images).exp().sum(-1, keepdim=True))


def test_accuracy_is_the_share_of_images_that_are_right(tmp_path):
    module = ImageClassifier("vit_digits", 10)
    trainer = fit(tmp_path, module)
    trainer.test(module, DigitsDataModule(), verbose=False)
    images, labels = next(iter(trainer.test_dataloaders))
    right = (module(images).argmax(-1) == labels).float().mean()
    assert trainer.callback_metrics["test/accuracy"] == pytest.approx(right.item())


def test_ready_module_keeps_its_weights_but_for_the_head():
    backbone = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=2, in_chans=1, depth=1)
    weight = backbone.blocks[0].attn.qkv.weight.clone()
    module = ImageClassifier(backbone, 3, AdapterConfig(rank=2))
    module.configure_model()
    assert torch.equal(module.backbone.blocks[0].attn.qkv.weight, weight)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_convolutional_backbone_is_adapted_by_pattern(tmp_path):
    adapter = AdapterConfig(rank=2, targets=["layer1.*.conv1"])
    module = ImageClassifier(
        "resnet10t", 10, adapter, backbone_options=BackboneOptions(pretrained=False, model_args={"in_chans": 1})
    )
    module.configure_model()
    statistics = module.backbone.bn1.running_mean.clone()
    fit(tmp_path, module)
    assert torch.equal(module.backbone.bn1.running_mean, statistics)


def test_checkpoint_of_the_tiny_vit_is_a_fraction_of_its_weights(tmp_path):
    module = ImageClassifier("vit_digits", 10, AdapterConfig(rank=2), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = fit(tmp_path, module)
    trainer.save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert (tmp_path / "x.ckpt").stat().st_size < 674_410 * 4 * 0.1


def test_backbone_given_as_a_module_has_its_parameters_once():
    module = ImageClassifier(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)), num_classes=3)
    assert list(module.state_dict()) == []
    module.configure_model()
    assert all(name.startswith("backbone.") for name in module.state_dict())
