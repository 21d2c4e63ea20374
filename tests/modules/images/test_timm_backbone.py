import pytest
import timm
import torch

from asym_lightning.modules import BackboneOptions
from asym_lightning.modules.images.timm_backbone import BUNDLED, bundled_backbones, create_timm_backbone


def test_bundled_vit_loads_its_weights_and_gets_a_new_head():
    reference = timm.create_model(f"local-dir:{BUNDLED / 'vit_digits'}", pretrained=True)
    model = create_timm_backbone("vit_digits", num_classes=10)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor) == (not name.startswith("head.")), name


def test_bundled_vit_is_as_small_as_promised():
    for name in bundled_backbones():
        assert (BUNDLED / name / "model.safetensors").stat().st_size <= 3_000_000
    num_parameters = sum(p.numel() for p in create_timm_backbone("vit_digits", 10).parameters())
    assert 300_000 <= num_parameters <= 700_000


def test_any_timm_name_works_with_random_weights_and_model_args():
    model = create_timm_backbone("resnet10t", 4, BackboneOptions(pretrained=False, model_args={"in_chans": 1}))
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 4)


def test_local_folder_is_read_with_and_without_weights(tmp_path):
    folder = BUNDLED / "vit_digits"
    pretrained = create_timm_backbone(str(folder), 3)
    random = create_timm_backbone(str(folder), 3, BackboneOptions(pretrained=False))
    bundled = create_timm_backbone("vit_digits", 3)
    assert torch.equal(pretrained.patch_embed.proj.weight, bundled.patch_embed.proj.weight)
    assert not torch.equal(random.patch_embed.proj.weight, bundled.patch_embed.proj.weight)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vit_digit", r"no backbone named 'vit_digit': did you mean vit_digits"),
        ("vit_tiny_patch16_225", r"no backbone named 'vit_tiny_patch16_225': did you mean vit_tiny_patch16_224"),
        ("qqqqqqqqqq", "no backbone named 'qqqqqqqqqq'; there are vit_digits, "),
        (
            "vit_tiny_patch16_224.augreg_in22k",
            r"tagged 'augreg_in22k': did you mean vit_tiny_patch16_224\.augreg_in21k",
        ),
        ("./no/such/folder", r"no backbone folder 'no/such/folder'"),
        ("local-dir:nowhere", r"no backbone folder 'nowhere'"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(source, message):
    with pytest.raises(ValueError, match=message):
        create_timm_backbone(source, 10)


def test_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json in timm's format"):
        create_timm_backbone(str(tmp_path), 10)


def test_folder_without_weights_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text((BUNDLED / "vit_digits" / "config.json").read_text())
    with pytest.raises(OSError, match=f"weights of the backbone '{tmp_path}' could not be loaded"):
        create_timm_backbone(str(tmp_path), 10)


def test_wrong_model_args_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`model_args` \{'no_such': 1\} do not suit the backbone 'vit_digits'"):
        create_timm_backbone("vit_digits", 10, BackboneOptions(model_args={"no_such": 1}))


def test_model_without_pretrained_weights_is_refused_by_name():
    with pytest.raises(OSError, match=r"'resnet50_mlp' could not be loaded \(No pretrained weights exist"):
        create_timm_backbone("resnet50_mlp", 10)
