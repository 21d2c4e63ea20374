"""What preference tuning logs of the rewards of pairs of answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

REWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": lambda chosen, rejected: (chosen > rejected).float(),
    "margin": lambda chosen, rejected: chosen - rejected,
    "chosen_reward": lambda chosen, rejected: chosen,
    "rejected_reward": lambda chosen, rejected: rejected,
}


class RewardMean(Metric):
    """Mean over pairs of what `REWARDS` names; the accuracy counts the pairs whose chosen answer has the larger one.

    >>> accuracy = RewardMean("accuracy")
    >>> accuracy.update(torch.tensor([[0.5, 0.1], [0.0, 0.0]]), torch.zeros(2))
    >>> accuracy.compute()
    tensor(0.5000)
    """

    full_state_update = False
    total: Tensor
    num_pairs: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("num_pairs", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, rewards: Tensor, targets: Tensor) -> None:
        """Add pairs: the rewards of chosen and rejected answers (pairs, 2)."""
        self.total += REWARDS[self.name](rewards[:, 0], rewards[:, 1]).sum()
        self.num_pairs += len(targets)

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.num_pairs.clamp(min=1)


def preference_metrics() -> MetricCollection:
    """Return all of them by name; groups are not looked for, since states that are equal at first differ later."""
    return MetricCollection({name: RewardMean(name) for name in REWARDS}, compute_groups=False)
