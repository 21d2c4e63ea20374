"""Losses by which texts of like meaning come close to one another, as functions of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from asym_lightning.core.kinds import Positive
from asym_lightning.core.options import check_kinds
from asym_lightning.core.private_names import trainer_of


@dataclass(frozen=True)
class ContrastiveLoss:
    """A loss of texts a, texts p that mean the same, and texts n that do not, by the cosines of their embeddings.

    | name | loss of a pair or triplet i | source |
    |---|---|---|
    | `in_batch` | -log softmax over all p and n of the batch of cos(a_i, .) / temperature, at p_i | arXiv 1705.00652 |
    | `triplet` | max(0, margin - cos(a_i, p_i) + cos(a_i, n_i)) | arXiv 1503.03832 |

    `in_batch` is what sentence-transformers calls MultipleNegativesRankingLoss.

    Args:
        name: Which of them.
        temperature: What cosines are divided by, in `in_batch`.
        margin: By how much a text is to be closer to the right one, in `triplet`.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it is none of the choices, or a number out of range.

    Example:
        >>> texts = torch.eye(2)
        >>> ContrastiveLoss(temperature=1.0)(texts, [texts])
        tensor(0.3133)
    """

    name: Literal["in_batch", "triplet"] = "in_batch"
    temperature: Positive = 0.05
    margin: Positive = 0.5

    def __post_init__(self) -> None:
        check_kinds(self)

    def __call__(self, anchors: Tensor, others: Sequence[Tensor], first: int = 0) -> Tensor:
        """Return the mean loss.

        Args:
            anchors: Embeddings of texts (texts, width).
            others: Those of texts that mean the same, and of texts that do not where there are some.
            first: Which of the others belongs to the first anchor, where they are also those of other processes.

        Raises:
            ValueError: If there are no texts that mean something else, in `triplet`.
        """
        anchors, *others = (F.normalize(of_side, dim=-1) for of_side in (anchors, *others))
        if self.name == "triplet":
            if len(others) < 2:
                raise ValueError("`loss.name: triplet` needs a negative of each pair; `in_batch` takes other pairs.")
            positives, negatives = (side[first : first + len(anchors)] for side in others)
            return F.relu(self.margin + (anchors * (negatives - positives)).sum(dim=-1)).mean()
        scores = anchors @ torch.cat(list(others)).T / self.temperature
        return F.cross_entropy(scores, torch.arange(first, first + len(anchors), device=scores.device))


def of_all_processes(module: LightningModule, sides: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """Return embeddings, in training those of all processes, and the number of the first one of this process.

    Texts of other processes are negatives too; gradients go back to the process that an embedding is of.
    """
    trainer = trainer_of(module)
    if trainer is None or trainer.world_size == 1 or not module.training:
        return list(sides), 0
    gathered = [torch.as_tensor(module.all_gather(side, sync_grads=True)).flatten(0, 1) for side in sides]
    return gathered, trainer.global_rank * len(sides[0])
