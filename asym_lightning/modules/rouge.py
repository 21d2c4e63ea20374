"""ROUGE, the overlap of a summary with its reference, without downloads and without NLTK."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from asym_lightning.modules.porter_stemmer import stem

ROUGE_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_ABBREVIATIONS = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bvs\.)(?<!\bNo\.)(?<!\b[A-Z]\.)"
_SENTENCE_END = re.compile(rf"{_ABBREVIATIONS}(?<=[.!?])\s+|(?<=[.!?][\"')\]”’])\s+")


class RougeScore(NamedTuple):
    """Share of the prediction that is in the reference, share of the reference that is in the prediction, and F1."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, hits: int, num_predicted: int, num_reference: int) -> RougeScore:
        """Score `hits` common units; 0 where either side is empty.

        >>> RougeScore.of(2, 4, 2)
        RougeScore(precision=0.5, recall=1.0, f1=0.6666666666666666)
        """
        if not hits:
            return cls(0.0, 0.0, 0.0)
        precision, recall = hits / num_predicted, hits / num_reference
        return cls(precision, recall, 2 * precision * recall / (precision + recall))


def rouge_scores(prediction: str, reference: str, use_stemmer: bool = True) -> dict[str, RougeScore]:
    """Compare a summary with its reference.

    - `rouge1`, `rouge2`: common words, and pairs of neighbouring words.
    - `rougeL`: longest common subsequence of words, the whole text taken as one sentence.
    - `rougeLsum`: the same by sentence, a union over the prediction's sentences for each sentence of the reference.
      **Lines are sentences**; use `split_sentences` first where they are not. What papers print as ROUGE-L on
      CNN/DailyMail is this one: `rougeL` is some ten points lower there. For one-sentence summaries both agree.

    Equal to the PyPI package `rouge-score` (tested to 1e-6), which needs NLTK and absl at run time; torchmetrics
    needs NLTK too, and a download for its `rougeLsum`.

    Args:
        prediction: The summary; an empty one scores 0.
        reference: What it should say.
        use_stemmer: Compare stems of the words that have more than three letters, as papers do.

    Example:
        >>> scores = rouge_scores("The cats sat.", "A cat sat down.")
        >>> {name: round(score.f1, 3) for name, score in scores.items()}
        {'rouge1': 0.571, 'rouge2': 0.4, 'rougeL': 0.571, 'rougeLsum': 0.571}
    """
    predicted, expected = rouge_tokens(prediction, use_stemmer), rouge_tokens(reference, use_stemmer)
    common = len(_matches(expected, predicted))
    return {
        "rouge1": _ngram_score(predicted, expected, 1),
        "rouge2": _ngram_score(predicted, expected, 2),
        "rougeL": RougeScore.of(common, len(predicted), len(expected)),
        "rougeLsum": _sentence_score(
            [rouge_tokens(line, use_stemmer) for line in prediction.split("\n")],
            [rouge_tokens(line, use_stemmer) for line in reference.split("\n")],
        ),
    }


def rouge_tokens(text: str, use_stemmer: bool) -> list[str]:
    """Return the words that ROUGE compares: runs of a-z and 0-9 of the lower-case text.

    >>> rouge_tokens("Naïve cats' summaries!", use_stemmer=True)
    ['na', 've', 'cat', 'summari']
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [stem(word) if len(word) > 3 else word for word in words] if use_stemmer else words


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
    """Mean ROUGE F1 over summaries, in [0, 1].

    Args:
        use_stemmer: See `rouge_scores`.

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
        """Add summaries; texts without line breaks are split into sentences for `rougeLsum`."""
        for prediction, reference in zip(predictions, references, strict=True):
            scores = rouge_scores(split_sentences(prediction), split_sentences(reference), self.use_stemmer)
            self.total += self.total.new_tensor([scores[name].f1 for name in ROUGE_NAMES])
            self.num_empty += not prediction.strip()
        self.num_texts += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each score."""
        means = (self.total / self.num_texts.clamp(min=1)).float()
        return dict(zip(ROUGE_NAMES, means.unbind(), strict=True))


def _ngram_score(predicted: list[str], expected: list[str], n: int) -> RougeScore:
    ours, theirs = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in (predicted, expected))
    return RougeScore.of((ours & theirs).total(), ours.total(), theirs.total())


def _sentence_score(predicted: list[list[str]], expected: list[list[str]]) -> RougeScore:
    left = Counter(word for sentence in predicted for word in sentence)
    num_predicted, num_expected = left.total(), sum(map(len, expected))
    left &= Counter(word for sentence in expected for word in sentence)  # no word counts twice on either side
    hits = 0
    for sentence in expected:
        for position in sorted({i for other in predicted for i in _matches(sentence, other)}):
            if left[sentence[position]] > 0:
                left[sentence[position]] -= 1
                hits += 1
    return RougeScore.of(hits, num_predicted, num_expected)


def _matches(reference: list[str], candidate: list[str]) -> list[int]:
    """Positions in the reference of a longest common subsequence; of several, the one that `rouge-score` finds.

    Row j of the usual table of lengths is one integer: bit i is 0 where reference word i makes the common
    subsequence with the first j candidate words longer. Machine words then do 64 cells at a time.

    Source: Hyyrö (2004), Bit-parallel LCS-length computation revisited.

    >>> _matches("a b c d".split(), "b x d a".split())
    [1, 3]
    """
    occurrences: dict[str, int] = {}
    for i, word in enumerate(reference):
        occurrences[word] = occurrences.get(word, 0) | 1 << i
    every = (1 << len(reference)) - 1
    rows = [every]
    for word in candidate:
        row = rows[-1]
        update = row & occurrences.get(word, 0)
        rows.append(((row + update) | (row - update)) & every)
    found: list[int] = []
    i, j = len(reference), len(candidate)
    while i and j:
        if reference[i - 1] == candidate[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif rows[j] >> (i - 1) & 1:
            i -= 1
        else:
            j -= 1
    return found[::-1]
