"""Losses of preference tuning, as functions of log-probabilities of the preferred answers and of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asym_lightning.core.kinds import NotNegative, Positive
from asym_lightning.core.options import check_kinds

LossName = Literal["dpo", "ipo", "kto", "orpo", "simpo"]


class Answers(NamedTuple):
    """Answers of one side, one a pair.

    Attributes:
        sums: Log-probabilities, summed over the tokens (pairs,).
        lengths: Numbers of tokens (pairs,).
        reference: `sums` by the reference model; None where there is none.
    """

    sums: Tensor
    lengths: Tensor
    reference: Tensor | None = None

    @property
    def means(self) -> Tensor:
        """Log-probabilities a token."""
        return self.sums / self.lengths

    @property
    def ratios(self) -> Tensor:
        """Logarithms of how much more likely the answers are than by the reference."""
        assert self.reference is not None
        return self.sums - self.reference


class Pairs(NamedTuple):
    """Pairs of answers, and what single losses need beside them.

    Attributes:
        chosen: The preferred answers.
        rejected: The others.
        shift: Mean ratio of answers to other prompts, at least 0, for `kto`.
        likelihood: Cross-entropy of the prompts with the preferred answers, for `orpo`.
    """

    chosen: Answers
    rejected: Answers
    shift: Tensor | float = 0.0
    likelihood: Tensor | float = 0.0


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss of pairs of answers, c chosen and r rejected, and the rewards that it implies.

    | name | loss of a pair | reward | source |
    |---|---|---|---|
    | `dpo` | -log sigmoid(beta (ratio c - ratio r)) | beta ratio | arXiv 2305.18290 |
    | `ipo` | (ratio c / tokens - ratio r / tokens - 1 / (2 beta))^2 | beta ratio | arXiv 2310.12036 |
    | `kto` | 1 - sigmoid(beta (ratio c - shift)), of r the reverse; their mean | beta ratio | arXiv 2402.01306 |
    | `orpo` | likelihood - beta log sigmoid(log odds c - log odds r) | beta mean | arXiv 2403.07691 |
    | `simpo` | -log sigmoid(beta (mean c - mean r) - gamma) | beta mean | arXiv 2405.14734 |

    `ratio`, `mean`, `shift` and `likelihood` are those of `Answers` and `Pairs`; odds are of the mean. `kto` is of
    single answers, and both of a pair are of one batch here. What papers leave open is as `trl` has it: the division by
    the number of tokens in `ipo`, and prompts in the likelihood of `orpo`.

    Args:
        name: Which of them.
        beta: How much a difference weighs.
        gamma: By how much the chosen answer has to be better, in `simpo`.
        desirable_weight: Weight of chosen answers in `kto`.
        undesirable_weight: Weight of rejected answers in `kto`.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it is none of the choices, or a number out of range.

    Example:
        >>> one, other = (Answers(torch.tensor([sum]), torch.tensor([2]), torch.tensor([-3.0])) for sum in (-2.0, -5.0))
        >>> PreferenceLoss("dpo", beta=1.0).of_pairs(Pairs(one, other))
        tensor([0.0486])
    """

    name: LossName = "dpo"
    beta: Positive = 0.1
    gamma: NotNegative = 0.5
    desirable_weight: NotNegative = 1.0
    undesirable_weight: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_kinds(self)

    @property
    def needs_reference(self) -> bool:
        """Whether answers are compared with what the model made of them before it was tuned."""
        return self.name in ("dpo", "ipo", "kto")

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the loss of each pair (pairs,)."""
        return _LOSSES[self.name](pairs, self)

    def rewards(self, pairs: Pairs) -> Tensor:
        """Return the rewards of chosen and rejected answers (pairs, 2)."""
        sides = (pairs.chosen, pairs.rejected)
        values = [side.ratios if self.needs_reference else side.means for side in sides]
        return self.beta * torch.stack(values, dim=1).detach()


def _dpo(pairs: Pairs, options: PreferenceLoss) -> Tensor:
    return -F.logsigmoid(options.beta * (pairs.chosen.ratios - pairs.rejected.ratios))


def _ipo(pairs: Pairs, options: PreferenceLoss) -> Tensor:
    chosen, rejected = (side.ratios / side.lengths for side in (pairs.chosen, pairs.rejected))
    return (chosen - rejected - 1 / (2 * options.beta)) ** 2


def _kto(pairs: Pairs, options: PreferenceLoss) -> Tensor:
    liked = 1 - torch.sigmoid(options.beta * (pairs.chosen.ratios - pairs.shift))
    disliked = 1 - torch.sigmoid(options.beta * (pairs.shift - pairs.rejected.ratios))
    return (options.desirable_weight * liked + options.undesirable_weight * disliked) / 2


def _orpo(pairs: Pairs, options: PreferenceLoss) -> Tensor:
    chosen, rejected = (side.means - torch.log(-torch.expm1(side.means)) for side in (pairs.chosen, pairs.rejected))
    return pairs.likelihood - options.beta * F.logsigmoid(chosen - rejected)


def _simpo(pairs: Pairs, options: PreferenceLoss) -> Tensor:
    return -F.logsigmoid(options.beta * (pairs.chosen.means - pairs.rejected.means) - options.gamma)


_LOSSES: Mapping[str, Callable[[Pairs, PreferenceLoss], Tensor]] = {
    "dpo": _dpo,
    "ipo": _ipo,
    "kto": _kto,
    "orpo": _orpo,
    "simpo": _simpo,
}
