"""The most likely answers in windows of texts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Spans(NamedTuple):
    """The best span of each window.

    Attributes:
        starts: Its first character (windows,).
        ends: The character after its last.
        scores: Sum of the logits of its first and last token.
        none: The same of there being no answer in the window.
    """

    starts: Tensor
    ends: Tensor
    scores: Tensor
    none: Tensor


def best_spans(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor, longest: int) -> Spans:
    """Return the span of each window whose first and last token have the largest logits.

    Args:
        start_logits: Of each token to be the first (windows, length).
        end_logits: Of each token to be the last.
        starts: First character of each token in the text, negative where it is not of the text.
        ends: The character after its last.
        longest: Longest span, in tokens.

    Example:
        >>> edges = torch.tensor([[-1, 0, 2]]), torch.tensor([[-1, 1, 5]])
        >>> best_spans(torch.tensor([[9.0, 1.0, 0.0]]), torch.tensor([[9.0, 0.0, 2.0]]), *edges, longest=5)[:2]
        (tensor([0]), tensor([5]))
    """
    is_text = starts >= 0
    length = starts.shape[1]
    band = torch.ones(length, length, dtype=torch.bool, device=starts.device).triu().tril(longest - 1)
    scores = start_logits[:, :, None].float() + end_logits[:, None, :].float()
    scores = scores.where(band & is_text[:, :, None] & is_text[:, None, :], -torch.inf)
    best, place = scores.flatten(1).max(dim=1)
    first, last = (place // length)[:, None], (place % length)[:, None]
    none = start_logits[:, 0].float() + end_logits[:, 0].float()
    return Spans(starts.gather(1, first)[:, 0], ends.gather(1, last)[:, 0], best, none)
