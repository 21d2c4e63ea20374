"""A timm backbone with a light decoder that tells the class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asym_lightning.core.files import read_json
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.images.timm_backbone import create_timm_backbone, timm_folder

DECODER = "decoder.safetensors"
NUM_LEVELS = 4


class TimmSegmenter(nn.Module):
    """A timm backbone, and the decoder of SegFormer on features of four of its depths.

    Of a backbone of several resolutions these are the last four, of one of a single resolution four at equal distances.
    The backbone goes by the names that it has in image classification, and so do its adapters.

    Args:
        encoder: The backbone, of timm.
        num_classes: Number of classes.
        width: Channels of the decoder.

    Raises:
        ValueError: If the backbone has no features of several depths.

    Example:
        >>> segmenter = TimmSegmenter(create_timm_backbone("vit_digits", num_classes=0), num_classes=3, width=8)
        >>> segmenter(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3, 4, 4])

    Source: Xie et al., "SegFormer", NeurIPS 2021, section 3.2; normalised by layer, where its code does so by batch.
    """

    def __init__(self, encoder: nn.Module, num_classes: int, width: int = 128) -> None:
        super().__init__()
        depths: Any = getattr(encoder, "feature_info", None)
        if not depths or not hasattr(encoder, "forward_intermediates"):
            raise ValueError(f"a {type(encoder).__name__} of timm has no features of several depths to segment by.")
        self.depths = _depths([depth["reduction"] for depth in depths])
        self.encoder = encoder
        self.decoder = Decoder([depths[number]["num_chs"] for number in self.depths], num_classes, width)

    @property
    def made_with(self) -> dict[str, int]:
        """Arguments of `create_timm_segmenter` that make one of the same shape."""
        return {"num_classes": self.decoder.classifier.out_channels, "width": self.decoder.classifier.in_channels}

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes, height, width) at the resolution of the finest features."""
        features = cast(Any, self.encoder).forward_intermediates(
            images, indices=self.depths, intermediates_only=True, output_fmt="NCHW"
        )
        logits: Tensor = self.decoder(features)
        return logits

    def save(self, folder: Path, label_names: Sequence[str] = ()) -> None:
        """Write the encoder as timm does, and the decoder beside it; `load_timm_segmenter` reads both."""
        config = {"decoder": self.made_with, **({"label_names": list(label_names)} if label_names else {})}
        timm.models.save_for_hf(self.encoder, str(folder), model_config=config, safe_serialization=True)
        save_file(self.decoder.state_dict(), folder / DECODER)


class Decoder(nn.Module):
    """Features of all depths in one width and at the finest resolution, put together and classified.

    Args:
        channels: Channels of the features of each depth.
        num_classes: Number of classes.
        width: Channels of the decoder.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.fuse = nn.Conv2d(len(channels) * width, width, 1, bias=False)
        self.norm = nn.GroupNorm(1, width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (batch, classes, height, width) at the resolution of the finest features."""
        size = max(tuple(feature.shape[-2:]) for feature in features)
        projected = [
            F.interpolate(projection(feature), size, mode="bilinear", align_corners=False)
            for projection, feature in zip(self.projections, features, strict=True)
        ]
        logits: Tensor = self.classifier(F.gelu(self.norm(self.fuse(torch.cat(projected, dim=1)))))
        return logits


def create_timm_segmenter(
    source: str, num_classes: int, width: int = 128, options: BackboneOptions = BackboneOptions()
) -> TimmSegmenter:
    """Build a timm backbone with a decoder, which is new unless the folder of the backbone holds one for the classes.

    Args:
        source: What `create_timm_backbone` takes, or a folder that `TimmSegmenter.save` wrote.
        num_classes: Number of classes.
        width: Channels of a new decoder.
        options: How the backbone is made.

    Raises:
        ValueError: If there is no such model, or it has no features of several depths.
        OSError: If the weights cannot be downloaded or read.
    """
    encoder = create_timm_backbone(source, 0, options)
    path = Path(timm_folder(source) or "") / DECODER
    saved = read_json(path.with_name("config.json")).get("decoder", {}) if path.is_file() else {}
    is_saved = options.pretrained and saved.get("num_classes") == num_classes
    segmenter = TimmSegmenter(encoder, num_classes, int(saved["width"]) if is_saved else width)
    if is_saved:
        segmenter.decoder.load_state_dict(load_file(path))
    return segmenter


def _depths(reductions: Sequence[int]) -> list[int]:
    """Which of a backbone's depths to read, by how much smaller than images their features are.

    >>> _depths([2, 4, 8, 16, 32]), _depths([16] * 12), _depths([16] * 2)
    ([1, 2, 3, 4], [2, 5, 8, 11], [0, 1])
    """
    count, levels = len(reductions), min(NUM_LEVELS, len(reductions))
    if len(set(reductions)) > 1:
        return list(range(count - levels, count))
    return [count * (level + 1) // levels - 1 for level in range(levels)]
