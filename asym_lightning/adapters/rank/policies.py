"""Which rank every adapter should have when: the policies of :class:`RankScheduler`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from asym_lightning.adapters.rank.groups import RankGroup
from asym_lightning.core.kinds import Count, Fraction, NotNegative, NumberOrZero, Range
from asym_lightning.core.options import CheckedArguments
from asym_lightning.core.stall import StallDetector


class Moment(NamedTuple):
    """When a policy is asked.

    Attributes:
        event: At the `start` of training (also of a resumed one), after a `step` of the optimizer, after an `epoch`, or
            after a `validation`.
        step: Optimizer steps done.
        epoch: Epochs done.
        metrics: What was logged, by name.
    """

    event: Literal["start", "step", "epoch", "validation"]
    step: int
    epoch: int
    metrics: Mapping[str, Tensor]


class RankPolicy(CheckedArguments, ABC):
    """Decides on ranks; subclass it and write `wanted_ranks` for a schedule of your own."""

    @property
    def max_rank(self) -> int | None:
        """The largest rank it may ask for, for which room is made; None if it never asks for more than there is."""
        return None

    def is_due(self, moment: Moment, groups: Mapping[str, RankGroup]) -> bool:
        """Whether ranks may change now: only then are they asked for, and do processes wait for the one that decides.

        It has to be the same in all processes, as steps and ranks are and metrics need not be.
        """
        return True

    @abstractmethod
    def wanted_ranks(self, moment: Moment, groups: Mapping[str, RankGroup]) -> Mapping[str, int]:
        """Return the ranks that groups should have from now on; those left out keep theirs.

        Args:
            moment: Now. No moment comes twice, but one step may have several events.
            groups: Adapters by name; the ones that share an A are one group.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""


class Milestones(RankPolicy):
    """One rank for all from a step or epoch on, up or down.

    Args:
        ranks: Rank by the number of steps (epochs) done; as pairs `[[0, 2], [100, 8]]` or a mapping. Before the first
            one the rank is the adapter's own.
        unit: What the milestones count: `steps` or `epochs`.

    Raises:
        ValueError: If there are no milestones, if they go backwards in time, or if a rank is less than 1.

    Example:
        >>> policy = Milestones({0: 2, 100: 8})
        >>> policy.max_rank, policy.rank_at(99), policy.rank_at(100)
        (8, 2, 8)
    """

    def __init__(
        self, ranks: Mapping[int, int] | Sequence[tuple[int, int]], unit: Literal["steps", "epochs"] = "steps"
    ) -> None:
        pairs = list(ranks.items()) if isinstance(ranks, Mapping) else [(time, rank) for time, rank in ranks]
        if not pairs:
            raise ValueError("`ranks` has no milestones; give at least one, such as {100: 8}.")
        if unit not in ("steps", "epochs"):
            raise ValueError(f"`unit` must be 'steps' or 'epochs', got {unit!r}.")
        times = [time for time, _ in pairs]
        if times[0] < 0 or any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError(f"`ranks` must go forwards in time from 0 on, got milestones at {times}.")
        for time, rank in pairs:
            if rank < 1:
                raise ValueError(f"`ranks` must be at least 1, got {rank} at {time} {unit}.")
        self.ranks = pairs
        self.unit = unit

    @property
    def max_rank(self) -> int:
        """The largest milestone."""
        return max(rank for _, rank in self.ranks)

    def rank_at(self, time: int) -> int | None:
        """The rank when that many steps (epochs) are done; None before the first milestone."""
        return next((rank for milestone, rank in reversed(self.ranks) if milestone <= time), None)

    def is_due(self, moment: Moment, groups: Mapping[str, RankGroup]) -> bool:
        """When a rank is not that of the last milestone."""
        return any(groups[name].rank != rank for name, rank in self.wanted_ranks(moment, groups).items())

    def wanted_ranks(self, moment: Moment, groups: Mapping[str, RankGroup]) -> Mapping[str, int]:
        """The rank of the last milestone, for all."""
        rank = self.rank_at(moment.step if self.unit == "steps" else moment.epoch)
        return {} if rank is None else dict.fromkeys(groups, rank)


class Energy(RankPolicy):
    """Shrink each adapter to the smallest rank that keeps a share of its update's squared Frobenius norm.

    Args:
        share: The share to keep, in (0, 1].
        every_n_steps: How often to shrink.
        start_step: Steps before the first time, in which the directions that matter may appear.
        min_rank: Never shrink below this.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> Energy(0.99).smallest_rank(torch.tensor([3.0, 2.0, 0.1]))
        2
    """

    def __init__(
        self, share: Fraction = 0.99, *, every_n_steps: Count = 100, start_step: NumberOrZero = 0, min_rank: Count = 1
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be in (0, 1], got {share}.")
        self.share, self.every_n_steps, self.start_step, self.min_rank = share, every_n_steps, start_step, min_rank

    def smallest_rank(self, values: Tensor) -> int:
        """The rank for these singular values, in descending order; all of it while they are zero."""
        energy = values.square().cumsum(0)
        if energy[-1] == 0:
            return len(values)
        return max(self.min_rank, int(torch.searchsorted(energy, self.share * energy[-1])) + 1)

    def is_due(self, moment: Moment, groups: Mapping[str, RankGroup]) -> bool:
        """Every so many steps."""
        return moment.event == "step" and moment.step >= self.start_step and moment.step % self.every_n_steps == 0

    def wanted_ranks(self, moment: Moment, groups: Mapping[str, RankGroup]) -> Mapping[str, int]:
        """The smallest sufficient rank, each time it is due."""
        if not self.is_due(moment, groups):
            return {}
        return {name: min(group.rank, self.smallest_rank(group.singular_values)) for name, group in groups.items()}


class Budget(RankPolicy):
    """Shrink to a total number of ranks, shared out over all adapters by singular value.

    The total falls from what there is at `start_step` to `total` at `end_step` along a cubic curve. All singular values
    of all updates compete; each adapter keeps at least one.

    Args:
        total: The final total: the sum of ranks over adapters (over layers, where slices share an A).
        start_step: Steps before the total begins to fall.
        end_step: Steps after which it is `total`.
        every_n_steps: How often to shrink in between.

    Raises:
        ValueError: If `end_step` is not after `start_step`, a value is out of its range, or, on start, `total` is less
            than the number of adapters.

    Source: Zhang et al. 2023 (AdaLoRA), equation 12. There importance is a smoothed sensitivity of the singular values'
    triplets, and pruned ones may come back; here it is the singular value itself, and they are gone.

    Example:
        >>> policy = Budget(total=10, start_step=100, end_step=300)
        >>> [policy.total_at(step, initial=90) for step in (0, 100, 200, 300, 400)]
        [90, 90, 20, 10, 10]
    """

    def __init__(
        self, total: Count, *, start_step: NumberOrZero = 0, end_step: Count, every_n_steps: Count = 10
    ) -> None:
        if end_step <= start_step:
            raise ValueError(f"`end_step` must come after `start_step` {start_step}, got {end_step}.")
        self.total, self.start_step, self.end_step, self.every_n_steps = total, start_step, end_step, every_n_steps
        self._initial: int | None = None

    def total_at(self, step: int, *, initial: int) -> int:
        """The total after a number of steps, if it was `initial` before."""
        left = 1 - min(1.0, max(0.0, (step - self.start_step) / (self.end_step - self.start_step)))
        return min(initial, self.total + round((initial - self.total) * left**3))

    def is_due(self, moment: Moment, groups: Mapping[str, RankGroup]) -> bool:
        """On start, where the total is looked at, and every so many steps while it falls."""
        if moment.event == "start":
            return True
        is_one_of_many = moment.step % self.every_n_steps == 0 or moment.step == self.end_step
        return moment.event == "step" and is_one_of_many and self.start_step < moment.step <= self.end_step

    def wanted_ranks(self, moment: Moment, groups: Mapping[str, RankGroup]) -> Mapping[str, int]:
        """The ranks of the largest singular values, as many as the total allows."""
        if self.total < len(groups):
            raise ValueError(
                f"`total` is {self.total}, but there are {len(groups)} adapters and each keeps at least rank 1."
            )
        if self._initial is None:
            self._initial = sum(group.rank for group in groups.values())
        if moment.event == "start" or not self.is_due(moment, groups):
            return {}
        return self._share_out(self.total_at(moment.step, initial=self._initial), groups)

    def state_dict(self) -> dict[str, Any]:
        """The total at the start."""
        return {"initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self._initial = state["initial"]

    @staticmethod
    def _share_out(total: int, groups: Mapping[str, RankGroup]) -> dict[str, int]:
        values = {name: group.singular_values for name, group in groups.items()}
        # The first value of each is kept in any case, so only the others compete.
        rest = torch.cat([v[1:] for v in values.values()])
        names = [name for name, v in values.items() for _ in v[1:]]
        ranks = dict.fromkeys(groups, 1)
        # Stable, so that ties (all zero, say) are decided alike everywhere.
        for index in rest.argsort(descending=True, stable=True)[: total - len(groups)].tolist():
            ranks[names[index]] += 1
        return ranks


class GrowOnStall(RankPolicy):
    """Grow all adapters when a monitored metric stalls, looked at after each validation (or epoch, if there is none).

    Args:
        monitor: Name under which the metric is logged.
        max_rank: Largest rank to grow to.
        factor: What a stall multiplies the rank by; it grows by at least 1.
        mode: `min` if less of the metric is better, `max` if more is.
        patience: Number of looks in a row without an improvement that make a stall.
        min_delta: Smallest change of the metric that counts as an improvement.

    Raises:
        ValueError: If a value is out of its range.
        RuntimeError: While training, if the metric was never logged; the message lists those that were.

    Example:
        >>> GrowOnStall("val/loss", max_rank=8).grown(2)
        4
    """

    def __init__(
        self,
        monitor: str,
        *,
        max_rank: Count,
        factor: Annotated[float, Range(1)] = 2.0,
        mode: Literal["min", "max"] = "min",
        patience: Count = 3,
        min_delta: NotNegative = 0.0,
    ) -> None:
        self._max_rank, self.factor = max_rank, factor
        self._stall = StallDetector(monitor, mode=mode, patience=patience, min_delta=min_delta)

    @property
    def max_rank(self) -> int:
        """The largest rank to grow to."""
        return self._max_rank

    def grown(self, rank: int) -> int:
        """What a rank becomes by a stall."""
        return max(rank, min(self._max_rank, max(rank + 1, math.floor(rank * self.factor))))

    def is_due(self, moment: Moment, groups: Mapping[str, RankGroup]) -> bool:
        """After each validation."""
        return moment.event == "validation"

    def wanted_ranks(self, moment: Moment, groups: Mapping[str, RankGroup]) -> Mapping[str, int]:
        """Larger ranks after a stall."""
        if not self.is_due(moment, groups) or not self._stall.has_stalled(moment.metrics):
            return {}
        self._stall.reset()
        return {name: self.grown(group.rank) for name, group in groups.items()}

    def state_dict(self) -> dict[str, Any]:
        """What was seen of the metric."""
        return self._stall.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self._stall.load_state_dict(state)
