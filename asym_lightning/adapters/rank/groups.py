"""Adapters whose ranks change together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.lookup import adapter_layers
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.core.dtensor import whole
from asym_lightning.core.tall_matrices import Columns, singular_values


@dataclass(frozen=True)
class RankGroup:
    """Adapters whose ranks change together: a single one, or all slices of a layer that read one shared A.

    Attributes:
        name: ``layer.slice``, or ``layer.shared``.
        adapters: At least one; all have one rank.
    """

    name: str
    adapters: tuple[LowRankAdapter, ...]

    @property
    def rank(self) -> int:
        """The active rank."""
        return self.adapters[0].rank

    @property
    def max_rank(self) -> int:
        """The rank that there is room for."""
        return self.adapters[0].max_rank

    @property
    def factor_A(self) -> nn.Parameter:
        """(max_rank, d_in): the one A."""
        return self.adapters[0].factor_A

    @property
    def A(self) -> Tensor:
        """(rank, d_in) float64 on the CPU."""
        return whole(self.factor_A)[: self.rank].to("cpu", torch.float64)

    @property
    def B(self) -> Tensor:
        """(sum of d_out, rank) float64 on the CPU: the B's stacked, each relative to the first one's scaling."""
        first = self.adapters[0]
        Bs = [whole(a.factor_B)[:, : self.rank].to("cpu", torch.float64) for a in self.adapters]
        return torch.cat([a.scaling / first.scaling * B for a, B in zip(self.adapters, Bs, strict=True)])

    @property
    def singular_values(self) -> Tensor:
        """(rank,) float64 on the CPU, descending: the singular values of the group's update ``s B A``."""
        return self.adapters[0].scaling * singular_values(Columns(self.B), Columns(self.A.T))

    @property
    def frozen_is_B(self) -> bool:
        """Whether A trains and B does not."""
        return self.factor_A.requires_grad and not any(a.factor_B.requires_grad for a in self.adapters)


def rank_groups(model: nn.Module) -> dict[str, RankGroup]:
    """The groups of a model by name, in its order; layers of a kind whose rank can't change are left out.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    >>> {name: group.rank for name, group in rank_groups(model).items()}
    {'0.all': 2}
    """
    groups: dict[str, RankGroup] = {}
    for layer_name, layer in adapter_layers(model).items():
        if not layer.can_change_rank:
            continue
        if layer.adapters.shares_a:
            parts = {"shared": tuple(layer.adapters.values())}
        else:
            parts = {name: (adapter,) for name, adapter in layer.adapters.items()}
        groups |= {
            f"{layer_name}.{part}": RankGroup(f"{layer_name}.{part}", members) for part, members in parts.items()
        }
    return groups
