"""One adapter: the factors A and B of one layer or of one slice of a fused layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.rule import Draw, InitRule, Letter
from asym_lightning.adapters.init.statistics import Data
from asym_lightning.adapters.init.subspaces import directions_beside
from asym_lightning.adapters.scheme import Scheme
from asym_lightning.core.dtensor import edited
from asym_lightning.core.dtypes import InFloat32


class LowRankAdapter(InFloat32):
    """The update ``scaling * B A`` of a (d_out, d_in) weight.

    The parameters ``factor_A`` (max_rank, d_in) and ``factor_B`` (d_out, max_rank) are allocated once and never
    replaced, so optimizers, DDP, FSDP and compiled graphs survive a change of rank. Rows of A and columns of B past
    :attr:`rank` are zero: they add nothing to the output and get zero gradients, and no forward pass has to slice.

    Args:
        d_out: Rows of the weight.
        d_in: Columns of the weight.
        rank: Active rank.
        max_rank: Allocated rank.
        scaling: Factor of B A; fixed, so that a change of rank never rescales the function.
        scheme: How the factors start and which of them trains.
        seed: Adapter seed.
        slot: Number of tasks before this one. Their rows of A's seeded matrix are left out; where A is drawn from data,
            the statistics have to say which directions those tasks have.
        key: Name of layer and slice, which with ``seed`` determines every random draw.
        A_key: The same for A alone; slices that share one A share this key too.
        device: Where the factors live.
        dtype: Their dtype.

    Example:
        >>> scheme = Scheme.parse("hB_zero_A_rand")
        >>> adapter = LowRankAdapter(6, 4, rank=2, max_rank=3, scaling=2.0, scheme=scheme, key="q")
        >>> adapter.reset_parameters()
        >>> adapter.A.shape, adapter.B.shape, adapter.factor_A.shape
        (torch.Size([2, 4]), torch.Size([6, 2]), torch.Size([3, 4]))
        >>> torch.allclose(adapter.A @ adapter.A.T, torch.eye(2), atol=1e-6)
        True
    """

    def __init__(
        self,
        d_out: int,
        d_in: int,
        *,
        rank: int,
        max_rank: int,
        scaling: float,
        scheme: Scheme,
        key: str,
        A_key: str | None = None,
        seed: int = 0,
        slot: int = 0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.d_out, self.d_in = d_out, d_in
        self.rank, self.max_rank = rank, max_rank
        # A text, which `torch.compile(dynamic=True)` takes as it is; a number would become an input of the graph, and
        # torch 2.14 lets only the first of several autograd functions have one.
        self._scaling, self.scheme = repr(float(scaling)), scheme
        self.key, self.A_key, self.seed, self.slot = key, A_key or key, seed, slot
        self.factor_A = nn.Parameter(torch.zeros(max_rank, d_in, device=device, dtype=dtype), scheme.A.is_trained)
        self.factor_B = nn.Parameter(torch.zeros(d_out, max_rank, device=device, dtype=dtype), scheme.B.is_trained)

    @property
    def scaling(self) -> float:
        """Factor of B A."""
        return float(self._scaling)

    @property
    def A(self) -> Tensor:
        """(rank, d_in): the active rows of A; the parameter itself where the whole allocation is active."""
        return self.factor_A if self.rank == self.max_rank else self.factor_A[: self.rank]

    @property
    def B(self) -> Tensor:
        """(d_out, rank): the active columns of B; the parameter itself where the whole allocation is active."""
        return self.factor_B if self.rank == self.max_rank else self.factor_B[:, : self.rank]

    def delta_weight(self) -> Tensor:
        """The (d_out, d_in) update ``scaling * B A``, in the factors' dtype."""
        return self.scaling * (self.B @ self.A)

    def reset_parameters(
        self,
        weight: Tensor | None = None,
        A_weight: Tensor | None = None,
        statistics: Mapping[str, Data] | None = None,
    ) -> None:
        """Draw both factors anew.

        Args:
            weight: The (d_out, d_in) pretrained weight, for rules that need it.
            A_weight: The weight that A is made for where that is another one, because slices share A.
            statistics: Of calibration batches by A's name, or rows that were drawn from them, for rules that need data.
        """
        with torch.no_grad():
            with edited(self.factor_A) as A:
                A.zero_()[: self.rank] = self.draw_A(weight if A_weight is None else A_weight, statistics).to(A)
            with edited(self.factor_B) as B:
                B.zero_()[:, : self.rank] = self.draw_B(weight, statistics).to(B)

    def draw_A(
        self,
        weight: Tensor | None = None,
        statistics: Mapping[str, Data] | None = None,
        *,
        rank: int | None = None,
    ) -> Tensor:
        """A as its rule gives it, (rank, d_in): a function of seed, name, shape and rule, and of what the rule needs.

        Args:
            weight: The pretrained weight that A is made for, for rules that need it.
            statistics: Of calibration batches by A's name, or rows that were drawn from them, for rules that need data.
            rank: Number of rows; ``None`` means the active rank.
        """
        generator = layer_generator(self.seed, f"{self.A_key}.A")
        before = self.slot * self.max_rank if self.scheme.A.rule.has_seeded_slots else 0
        draw = Draw(before + (rank or self.rank), self.d_in, self.d_in, generator, weight)
        return self._draw("A", draw, self.A_key, statistics)[before:]

    def draw_B(self, weight: Tensor | None = None, statistics: Mapping[str, Data] | None = None) -> Tensor:
        """B as its rule gives it, (d_out, rank); see :meth:`draw_A`."""
        draw = Draw(self.rank, self.d_out, self.rank, layer_generator(self.seed, f"{self.key}.B"), weight)
        return self._draw("B", draw, self.key, statistics).T

    def _draw(self, letter: Letter, draw: Draw, key: str, statistics: Mapping[str, Data] | None) -> Tensor:
        rule = (self.scheme.A if letter == "A" else self.scheme.B).rule
        if not rule.needs_weight:
            draw = draw._replace(weight=None)
        elif draw.weight is None or draw.weight.is_meta:
            raise RuntimeError(
                f"Init {rule.name!r} of {self.key} needs the pretrained weight, which is not loaded yet."
            )
        if rule.needs_data:
            found = (statistics or {}).get(key)
            if found is None:
                raise ValueError(
                    f"Init {rule.name!r} of `{key}` is drawn from data, and there are no statistics of it; give "
                    "`inject_adapters` those of calibration batches."
                )
            if isinstance(found, Tensor):
                return _drawn_before(found, draw, key)
            if found.d_in != self.d_in:
                raise ValueError(f"The statistics of `{key}` are of {found.d_in} inputs, but it has {self.d_in}.")
            draw = draw._replace(statistics=found)
        rows = self._rows_in_slot(rule, draw) if letter == "A" else rule.rows(draw)
        if rows.shape != (draw.rank, draw.dim):
            raise ValueError(
                f"Init {rule.name!r} gave {tuple(rows.shape)} for `{key}`, which needs {(draw.rank, draw.dim)}."
            )
        return rows

    def _rows_in_slot(self, rule: InitRule, draw: Draw) -> Tensor:
        """Rows as the rule draws them; from data, in a later slot, among the directions that earlier tasks leave."""
        if not (self.slot and draw.statistics):
            return rule.rows(draw)
        if draw.statistics.taken is None:
            raise ValueError(
                f"`slot` is {self.slot}, and the statistics of `{self.A_key}` say nothing of earlier tasks' inputs; "
                "give CalibrateA their file `tasks`, or the statistics `taken`."
            )
        free = directions_beside(draw.statistics.taken)
        if len(free) < draw.rank:
            raise ValueError(
                f"`slot` is {self.slot}, and earlier tasks' inputs leave {len(free)} of the {self.d_in} directions of "
                f"`{self.A_key}`, fewer than rank {draw.rank}: take a smaller rank, or a smaller `share` "
                "when those tasks are trained."
            )
        weight = None if draw.weight is None else draw.weight @ free.to(draw.weight).T
        statistics = draw.statistics.along(free)
        rows = rule.rows(draw._replace(dim=len(free), fan_in=len(free), weight=weight, statistics=statistics))
        return rows @ free.to(rows)

    # The active rank travels with the state dict, as a tensor so that `torch.load(weights_only=True)` reads it.
    def get_extra_state(self) -> Tensor:
        """The active rank."""
        return torch.tensor(self.rank)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the active rank."""
        rank = int(state)
        if not 1 <= rank <= self.max_rank:
            raise ValueError(f"{self.key} has room for rank {self.max_rank}, the saved adapter has rank {rank}.")
        self.rank = rank

    def extra_repr(self) -> str:
        """Shapes, scaling and scheme, for ``print(model)``."""
        rank = str(self.rank) if self.rank == self.max_rank else f"{self.rank} of {self.max_rank}"
        return f"{self.d_out}x{self.d_in}, rank={rank}, scaling={self.scaling:g}, {self.scheme}"


def _drawn_before(rows: Tensor, draw: Draw, key: str) -> Tensor:
    if rows.dim() != 2 or len(rows) < draw.rank or rows.shape[1] != draw.dim:
        raise ValueError(
            f"`{key}` needs {draw.rank} rows of length {draw.dim}, but what was drawn before for it is "
            f"{tuple(rows.shape)}."
        )
    return rows[: draw.rank]
