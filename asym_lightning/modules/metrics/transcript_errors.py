"""Errors of transcripts, in words and in characters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.text import CharErrorRate, WordErrorRate


class TranscriptErrors(Metric):
    """Words, and characters, that have to be put in, taken out or replaced, by the number that there should be.

    Where none should be there the rates are not defined: a warning says so, and they are 0 where nothing is written
    and 1 else.

    Example:
        >>> errors = TranscriptErrors()
        >>> errors.update(["the cat sat", "a dog"], ["the cat sat", "the dog"])
        >>> errors.compute()
        {'wer': tensor(0.2000), 'cer': tensor(0.1667)}

    Attributes:
        num_texts: Number of transcripts.
        num_empty: Nothing is said of empty ones, which may be right; where they are not, they are errors like others.
    """

    full_state_update = False
    num_texts: Tensor
    num_empty = 0

    def __init__(self) -> None:
        super().__init__()
        self.words, self.characters = WordErrorRate(), CharErrorRate()
        self.add_state("num_texts", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add transcripts."""
        for rate in (self.words, self.characters):
            rate.update(list(predictions), list(references))
        self.num_texts += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """Return the rates."""
        rates = {"wer": self.words.compute(), "cer": self.characters.compute()}
        for name, rate in rates.items():
            if not bool(torch.isfinite(rate)):
                rank_zero_warn(f"the reference transcripts are empty, so `{name}` is not defined.")
                rates[name] = torch.nan_to_num(rate, nan=0.0, posinf=1.0)
        return rates

    def reset(self) -> None:
        """Forget all transcripts."""
        super().reset()
        self.words.reset()
        self.characters.reset()
