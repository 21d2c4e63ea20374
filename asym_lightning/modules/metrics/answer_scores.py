"""How much of the answers to questions is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import squad

Reference = Mapping[str, Any]


class AnswerScore(Metric):
    """Share of answers that are exactly right, or mean F1 of their words, as SQuAD's script has both, in [0, 1].

    Of an answer with several references the best counts. In training, which has no time to look at texts, first and
    last tokens are compared in place of words.

    Args:
        score: Which of the two.

    Example:
        >>> f1 = AnswerScore("f1")
        >>> f1.update(["the old mat"], [["a mat", "a rug"]])
        >>> f1.update(torch.tensor([[3, 4]]), torch.tensor([[4, 4]]))
        >>> f1.compute()
        tensor(0.6667)
    """

    full_state_update = False
    total: Tensor
    num_answers: Tensor

    def __init__(self, score: Literal["exact_match", "f1"]) -> None:
        super().__init__()
        self.score = score
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_answers", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor | Sequence[str], references: Tensor | Sequence[Sequence[str]]) -> None:
        """Add answers: texts and those that are right, of which there may be none; or first and last tokens."""
        if isinstance(predictions, Tensor) and isinstance(references, Tensor):
            self.total += self._of_tokens(predictions, references).sum()
        else:
            self.total += self._of_texts(list(predictions), [list(texts) for texts in references])
        self.num_answers += len(references)

    def compute(self) -> Tensor:
        """Return the score."""
        return self.total / self.num_answers.clamp(min=1)

    def _of_tokens(self, found: Tensor, known: Tensor) -> Tensor:
        if self.score == "exact_match":
            return (found == known).all(dim=1).float()
        shared = (torch.minimum(found[:, 1], known[:, 1]) - torch.maximum(found[:, 0], known[:, 0]) + 1).clamp(min=0)
        sizes = [(side[:, 1] - side[:, 0] + 1).clamp(min=0) for side in (found, known)]
        return 2 * shared / (sizes[0] + sizes[1]).clamp(min=1)

    def _of_texts(self, found: Sequence[Any], known: Sequence[Any]) -> float:
        predictions: Any = [{"prediction_text": text, "id": str(number)} for number, text in enumerate(found)]
        references: Any = [{"answers": {"text": given or [""]}, "id": str(i)} for i, given in enumerate(known)]
        return float(squad(predictions, references)[self.score]) / 100 * len(found) if found else 0.0
