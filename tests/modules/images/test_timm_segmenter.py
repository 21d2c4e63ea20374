import pytest
import timm
import torch

from asym_lightning.modules import BackboneOptions
from asym_lightning.modules.images.timm_segmenter import TimmSegmenter, create_timm_segmenter

BACKBONES = {
    "vit_tiny_patch16_224": ({"img_size": 32, "patch_size": 8, "depth": 6}, 4),
    "swin_tiny_patch4_window7_224": ({"img_size": 56, "depths": (1, 1, 1, 1), "embed_dim": 24}, 14),
    "resnet10t": ({}, 16),
    "convnext_atto": ({"depths": (1,) * 4, "dims": (16,) * 4}, 16),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone_gives_logits_at_its_finest_resolution(name):
    args, side = BACKBONES[name]
    segmenter = create_timm_segmenter(name, 3, 8, BackboneOptions(pretrained=False, model_args=args)).eval()
    size = args.get("img_size", 64)
    assert segmenter(torch.zeros(2, 3, size, size)).shape == (2, 3, side, side)


def test_a_saved_one_comes_back_with_its_decoder_and_timm_reads_the_encoder(tmp_path):
    torch.manual_seed(0)
    segmenter = create_timm_segmenter("vit_digits", 3, 8).eval()
    segmenter.save(tmp_path / "saved", ["a", "b", "c"])
    images = torch.randn(2, 1, 8, 8)
    again = create_timm_segmenter(str(tmp_path / "saved"), 3).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(images), segmenter(images))
        encoder = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
        torch.testing.assert_close(encoder(images), segmenter.encoder(images))
    assert create_timm_segmenter(str(tmp_path / "saved"), 4).decoder.classifier.out_channels == 4


def test_a_backbone_without_features_of_several_depths_is_refused():
    with pytest.raises(ValueError, match="a Linear of timm has no features of several depths"):
        TimmSegmenter(torch.nn.Linear(2, 2), 3)
