"""Models that tell the class of each pixel, of timm and of Hugging Face, and what they make of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)

from asym_lightning.core.files import read_json
from asym_lightning.core.tokens import IGNORED
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.heads.headed_backbone import HeadedBackbone, create_headed_backbone
from asym_lightning.modules.images.timm_segmenter import create_timm_segmenter
from asym_lightning.modules.pretrained_config import pretrained_config


class Segmentation(NamedTuple):
    """What a model makes of images.

    Attributes:
        scores: Of each class at each pixel of the images (batch, classes, height, width): logits, or sums of
            probabilities of a model that proposes masks.
        loss: The model's own, of one that proposes masks; None of others, or where there are no masks to learn from.
    """

    scores: Tensor
    loss: Tensor | None = None


def create_segmenter(
    source: str, label_names: Sequence[str], width: int = 128, options: BackboneOptions = BackboneOptions()
) -> HeadedBackbone:
    """Build a segmenter by name; one that was trained on other classes gets a new head.

    Args:
        source: A backbone of timm as `create_timm_backbone` takes it, which gets a decoder; or a model of Hugging Face:
            a local folder, or a name on the hub, `owner/name`.
        label_names: Names of the classes by number.
        width: Channels of the decoder of a backbone of timm.
        options: How it is made.

    Raises:
        ValueError: If there is no such model.
    """
    if not _is_of_transformers(source):
        model = create_timm_segmenter(source, len(label_names), width, options)
        return HeadedBackbone(model, ["decoder"])
    config: Any = pretrained_config(source, options.model_args)
    if hasattr(config, "use_auxiliary_head"):  # its head would learn nothing from the loss of pixels
        config.use_auxiliary_head = False
    proposes = type(config) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    kind = AutoModelForUniversalSegmentation if proposes else AutoModelForSemanticSegmentation
    return create_headed_backbone(source, len(label_names), label_names, options, kind)


def segment(
    model: nn.Module, images: Tensor, masks: Tensor | None = None, order: Sequence[int] | None = None
) -> Segmentation:
    """Return what a model makes of images.

    Args:
        model: A model that returns logits (batch, classes, height, width), or one of Hugging Face, which may propose
            masks with a class each, as Mask2Former does.
        images: Images (batch, channels, height, width).
        masks: Classes of the pixels (batch, height, width), -100 where that is not known; None gives no own loss.
        order: The model's own number of each class; None where it has the same.

    Raises:
        ValueError: If the model returns neither.
    """
    proposes = type(getattr(model, "config", None)) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    output: Any = model(images, **(_proposed(masks, order) if proposes and masks is not None else {}))
    if isinstance(output, Tensor):
        scores = output
    elif hasattr(output, "masks_queries_logits"):
        probabilities = output.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # the last is that of no class
        masks_of_queries = output.masks_queries_logits.float().sigmoid()
        scores = torch.einsum("bqc,bqhw->bchw", probabilities, masks_of_queries)
    elif isinstance(getattr(output, "logits", None), Tensor) and output.logits.ndim == 4:
        scores = output.logits
    else:
        raise ValueError(f"a {type(model).__name__} returns no classes of pixels.")
    scores = F.interpolate(scores.float(), images.shape[-2:], mode="bilinear", align_corners=False)
    scores = scores if order is None else scores[:, list(order)]
    return Segmentation(scores, output.loss if proposes and masks is not None else None)


def _proposed(masks: Tensor, order: Sequence[int] | None = None) -> dict[str, list[Tensor]]:
    """One mask for each class that there is in an image, as models that propose masks learn them.

    >>> found = _proposed(torch.tensor([[[2, 2], [-100, 0]]]))
    >>> found["class_labels"], found["mask_labels"][0].tolist()
    ([tensor([0, 2])], [[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    """
    classes = [mask[mask != IGNORED].unique() for mask in masks]
    of_classes = [(mask == found[:, None, None]).float() for mask, found in zip(masks, classes, strict=True)]
    if order is not None:
        classes = [found.new_tensor(order)[found] for found in classes]
    return {"class_labels": classes, "mask_labels": of_classes}


def _is_of_transformers(source: str) -> bool:
    config = Path(source) / "config.json"
    if config.is_file():
        return "model_type" in read_json(config)
    return "/" in source and not source.startswith(("hf-hub:", "local-dir:"))
