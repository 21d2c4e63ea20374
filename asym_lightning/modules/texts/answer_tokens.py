"""Batches of pairs of answers as rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asym_lightning.core.tokens import IGNORED

SIDES = ("chosen", "rejected")


class AnswerTokens(NamedTuple):
    """Prompts with an answer each; where they are of pairs, all chosen answers and then all rejected ones.

    Attributes:
        input_ids: The tokens (rows, length), padded at their ends.
        attention_mask: 1 where they are no padding.
        labels: The tokens whose log-probabilities are asked for, -100 elsewhere.
        positions: Where these are, among all but the first of each row; found before a batch goes to its device, for on
            a GPU the question waits for all that it has been given to do.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    positions: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> AnswerTokens:
        """Find the positions."""
        positions = (labels[:, 1:].flatten() != IGNORED).nonzero().flatten()
        return cls(input_ids, attention_mask, labels, positions)

    @classmethod
    def of_pairs(cls, batch: Mapping[str, Tensor]) -> AnswerTokens:
        """Stack both sides of a batch, which need not be of one length."""
        width = max(batch[f"{side}_input_ids"].shape[1] for side in SIDES)
        stacked = []
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", IGNORED)):
            sides = [batch[f"{side}_{name}"] for side in SIDES]
            stacked.append(torch.cat([F.pad(side, (0, width - side.shape[1]), value=fill) for side in sides]))
        return cls.of(*stacked)

    def with_prompts_of_chosen(self) -> AnswerTokens:
        """Label the prompts of the chosen half too."""
        is_chosen = torch.arange(len(self.labels), device=self.labels.device) < len(self.labels) // 2
        is_text = is_chosen[:, None] & self.attention_mask.bool()
        return self.of(self.input_ids, self.attention_mask, self.input_ids.where(is_text, self.labels))

    def answers_of_others(self) -> AnswerTokens:
        """Give each prompt the answer of the next row, which is to another prompt unless there is but one pair.

        >>> ids = torch.tensor([[1, 2, 5, 0], [3, 6, 7, 0]])
        >>> labels = torch.tensor([[-100, -100, 5, -100], [-100, 6, 7, -100]])
        >>> AnswerTokens.of(ids, (ids > 0).long(), labels).answers_of_others().input_ids.tolist()
        [[1, 2, 6, 7], [3, 5, 0, 0]]
        """
        is_answer = self.labels != IGNORED
        lengths = self.attention_mask.sum(dim=1)
        num_answer = is_answer.sum(dim=1)
        num_prompt = lengths - num_answer
        given = num_answer.roll(-1)
        width = int((num_prompt + given).max())
        at = torch.arange(width, device=self.labels.device).expand(len(lengths), width)
        in_prompt, in_text = at < num_prompt[:, None], at < (num_prompt + given)[:, None]
        last = self.input_ids.shape[1] - 1
        prompts = self.input_ids.gather(1, at.clamp(max=last))
        of_next = (at - num_prompt[:, None] + num_prompt.roll(-1)[:, None]).clamp(0, last)
        answers = self.input_ids.roll(-1, dims=0).gather(1, of_next)
        tokens = prompts.where(in_prompt, answers).where(in_text, 0)
        return self.of(tokens, in_text.long(), tokens.where(in_text & ~in_prompt, IGNORED))


class PairTokens(NamedTuple):
    """What goes through the model for a batch of pairs.

    Attributes:
        answers: Both answers of each pair; for `orpo` the prompts of the chosen ones are labelled too.
        is_answer: Which tokens are of answers, from the second one on.
        others: The answers to other prompts, for `kto`.
    """

    answers: AnswerTokens
    is_answer: Tensor
    others: AnswerTokens | None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor], loss: str) -> PairTokens:
        """Stack a batch as a loss needs it, in page-locked memory where the batch is."""
        answers = AnswerTokens.of_pairs(batch)
        others = answers.answers_of_others() if loss == "kto" else None
        is_answer = answers.labels[:, 1:] != IGNORED
        if loss == "orpo":
            answers = answers.with_prompts_of_chosen()
        if not batch["chosen_labels"].is_pinned():
            return cls(answers, is_answer, others)
        parts = [None if part is None else AnswerTokens(*(t.pin_memory() for t in part)) for part in (answers, others)]
        return cls(parts[0] or answers, is_answer.pin_memory(), parts[1])

    def checked(self) -> PairTokens:
        """Check on the CPU that every pair has both answers, and return the tokens.

        Raises:
            ValueError: If an answer has no token, of which losses that divide by their number would be NaN.
        """
        if empty := (~self.is_answer.any(dim=1)).nonzero().flatten().tolist():
            side, pair = divmod(empty[0], len(self.is_answer) // len(SIDES))
            raise ValueError(
                f"pair {pair} of a batch has no {SIDES[side]} answer: its `{SIDES[side]}_labels` are all {IGNORED} "
                "from the second token on. Leave such pairs out, as `PreferenceDataModule` does."
            )
        return self
