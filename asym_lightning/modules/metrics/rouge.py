"""ROUGE, the overlap of a summary with its reference, by the package `rouge-score` and without downloads."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric

from asym_lightning.core.extras import extra_named

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

ROUGE_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_ABBREVIATIONS = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\bNo\.)(?<!\b[A-Z]\.)"
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}(?<=[.!?])\s+|(?<=[.!?][\"')\]”’])\s+")


def split_sentences(text: str) -> str:
    """Return a text with each sentence on a line of its own; a text that has several lines is left alone.

    Sentences end at `.`, `!` or `?` before a space, but not after `Mr.` and the like or an initial. NLTK's
    Punkt, which the usual scripts download, knows more abbreviations; the two differ in rare sentences alone.

    >>> split_sentences('Mr. Smith came. He said "No." And left.').split(chr(10))
    ['Mr. Smith came.', 'He said "No."', 'And left.']
    """
    text = text.strip()
    return text if "\n" in text else "\n".join(_SENTENCE_END.split(text))


class Rouge(Metric):
    """Mean ROUGE F1 over summaries, in [0, 1], by the package `rouge-score`, which published numbers are made with.

    - `rouge1`, `rouge2`: common words, and pairs of neighbouring words.
    - `rougeL`: longest common subsequence of words, the whole text taken as one sentence.
    - `rougeLsum`: the same by sentence, a union over the prediction's sentences for each sentence of the reference.
      What papers print as ROUGE-L on CNN/DailyMail is this one: `rougeL` is some ten points lower there. For
      one-sentence summaries both agree.

    Args:
        use_stemmer: Compare stems of the words that have more than three letters, as papers do.

    Example:
        >>> rouge = Rouge()
        >>> rouge.update(["The cats sat.", ""], ["The cat sat.", "The dog ran."])
        >>> {name: round(float(value), 3) for name, value in rouge.compute().items()}
        {'rouge1': 0.5, 'rouge2': 0.5, 'rougeL': 0.5, 'rougeLsum': 0.5}
        >>> int(rouge.num_empty)
        1

    Attributes:
        num_empty: Number of empty summaries, which score 0.
    """

    full_state_update = False
    total: Tensor
    num_texts: Tensor
    num_empty: Tensor

    def __init__(self, use_stemmer: bool = True) -> None:
        super().__init__()
        self.use_stemmer = use_stemmer
        self.add_state("total", torch.zeros(len(ROUGE_NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_texts", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_empty", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add summaries; texts without line breaks are split into sentences for `rougeLsum`.

        Raises:
            ModuleNotFoundError: `rouge-score` is not installed.
        """
        for prediction, reference in zip(predictions, references, strict=True):
            scores = _scorer(self.use_stemmer).score(split_sentences(reference), split_sentences(prediction))
            self.total += self.total.new_tensor([scores[name].fmeasure for name in ROUGE_NAMES])
            self.num_empty += not prediction.strip()
        self.num_texts += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each score."""
        means = (self.total / self.num_texts.clamp(min=1)).float()
        return dict(zip(ROUGE_NAMES, means.unbind(), strict=True))


@functools.cache
def _scorer(use_stemmer: bool) -> RougeScorer:
    """Made when the first summary comes: NLTK, which it imports, takes more than a second."""
    with extra_named("Rouge"):
        from rouge_score.rouge_scorer import RougeScorer
    return RougeScorer(list(ROUGE_NAMES), use_stemmer=use_stemmer)
