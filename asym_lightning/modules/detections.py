"""Boxes of objects, as models of Hugging Face that detect give and learn them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Boxes = Mapping[str, Tensor]
"""Of one image: `boxes` (n, 4), `labels` (n,), and of those that are found `scores` (n,)."""


def corners(boxes: Tensor) -> Tensor:
    """Left, top, right and bottom of boxes that are given by centre, width and height (n, 4).

    >>> corners(torch.tensor([[0.5, 0.5, 0.5, 1.0]]))
    tensor([[0.2500, 0.0000, 0.7500, 1.0000]])
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def found(output: Any, num_classes: int, order: Sequence[int] | None = None) -> list[Boxes]:
    """Return what a model found in each image, the likeliest first.

    A model with an output more than classes has one for no object, and a class for each of its boxes; of others each
    box and class is judged by itself, and as many are taken as there are boxes.

    Args:
        output: Has `logits` (batch, boxes, outputs) and `pred_boxes` (batch, boxes, 4), as shares of the image.
        num_classes: Number of classes.
        order: The model's own number of each class; None where it has the same.

    Raises:
        ValueError: If the model returns something else.
    """
    logits, boxes = getattr(output, "logits", None), getattr(output, "pred_boxes", None)
    if logits is None or boxes is None or logits.shape[-1] not in (num_classes, num_classes + 1):
        raise ValueError(f"the backbone returns no boxes with {num_classes} classes.")
    logits = logits.float()
    excludes = logits.shape[-1] == num_classes + 1
    of_classes = logits.softmax(dim=-1)[..., :-1] if excludes else logits.sigmoid()
    of_classes = of_classes if order is None else of_classes[..., list(order)]
    if excludes:
        scores, labels = of_classes.max(dim=-1)
        scores, places = scores.sort(dim=-1, descending=True)
        labels = labels.gather(1, places)
    else:
        scores, cells = of_classes.flatten(1).topk(boxes.shape[1], dim=-1)
        places, labels = cells // num_classes, cells % num_classes
    chosen = corners(boxes.float()).gather(1, places[..., None].expand(-1, -1, 4))
    return [
        {"boxes": of_image, "scores": score, "labels": label}
        for of_image, score, label in zip(chosen, scores, labels, strict=True)
    ]


def to_learn(targets: Sequence[Boxes], order: Sequence[int] | None = None) -> list[dict[str, Tensor]]:
    """Return targets by the names that models learn them by, with the numbers that the model has for classes."""
    return [
        {
            "boxes": target["boxes"],
            "class_labels": target["labels"] if order is None else target["labels"].new_tensor(order)[target["labels"]],
        }
        for target in targets
    ]
