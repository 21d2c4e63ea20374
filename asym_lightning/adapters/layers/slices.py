"""The adapters of one layer, by slice."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence, ValuesView

import torch
from torch import Tensor, nn

from asym_lightning.adapters.config import AdapterConfig
from asym_lightning.adapters.init.statistics import Data
from asym_lightning.adapters.kernels.by_group import FactorsByGroup
from asym_lightning.adapters.kernels.by_row import FactorsByRow
from asym_lightning.adapters.kernels.linear import adapted_linear
from asym_lightning.adapters.kernels.plan import Plan, Weight
from asym_lightning.adapters.kernels.sparse_rows import SparseRows
from asym_lightning.adapters.layers.low_rank import LowRankAdapter
from asym_lightning.adapters.rows import Rows
from asym_lightning.core.private_names import num_edits


class SliceAdapters(nn.ModuleDict):
    """The adapters of one layer, keyed by slice: ``q``, ``k``, ``v``, or ``all`` for a whole layer.

    Args:
        adapters: One :class:`LowRankAdapter` a slice; those that share A hold the same parameter.
        rows: Which rows of the weight each slice is.
        config: The configuration that the model was adapted with.
        is_read: Host code reads the layer's weight, and has to find the update in it.

    Attributes:
        has_opened_bypass: The layer's host went past it until it was adapted.
        by_row: Factors of many adapters and which rows of a batch have which, while they are in the place of its own.
    """

    def __init__(
        self,
        adapters: Mapping[str, LowRankAdapter],
        rows: Mapping[str, Rows],
        config: AdapterConfig,
        *,
        is_read: bool = False,
    ) -> None:
        super().__init__(adapters)
        self.rows = dict(rows)
        self.config = config
        self._dropout = repr(float(config.dropout))  # a text, as an adapter's scaling is
        self.is_read = is_read
        self.has_opened_bypass = False
        self.by_row: FactorsByRow | FactorsByGroup | None = None
        self.host_class: type[nn.Module] = nn.Module
        self._packed: Tensor | None = None
        self._sparse: tuple[SparseRows, ...] | None = None
        self._sparse_of: list[tuple[int, int, int]] = []
        self._plans: dict[bool, Plan] = {}  # in training and in evaluation

    # nn.ModuleDict types its values as Module.
    def __getitem__(self, key: str) -> LowRankAdapter:
        return super().__getitem__(key)  # type: ignore[return-value]

    def items(self) -> ItemsView[str, LowRankAdapter]:
        """Slice names and adapters."""
        return super().items()  # type: ignore[return-value]

    def values(self) -> ValuesView[LowRankAdapter]:
        """The adapters."""
        return super().values()  # type: ignore[return-value]

    @property
    def shares_a(self) -> bool:
        """Whether several slices read one A."""
        return self.config.share_a and len(self) > 1

    @property
    def As(self) -> Sequence[Tensor]:
        """(max_rank, d_in) each: one a slice, or the shared one."""
        factors = [adapter.factor_A for adapter in self.values()]
        return factors[:1] if self.shares_a else factors

    @property
    def Bs(self) -> Sequence[Tensor]:
        """(rows, max_rank) each."""
        return [adapter.factor_B for adapter in self.values()]

    # FSDP1 wraps this module and gathers its factors when it is called, so layers call it and read nothing of it.
    def forward(self, x: Tensor, weight: Weight, bias: Tensor | None) -> Tensor:
        """``x (W + s B A)^T + b`` for a (d_out, d_in) weight."""
        if self.by_row is not None:
            return self.by_row.linear(x, weight, bias, self.As, self.plan())
        packed = self.packed_with(weight) if isinstance(weight, Tensor) else None
        return adapted_linear(x, weight, bias, self.As, self.Bs, self.plan(), packed)

    def plan(self) -> Plan:
        """What the kernel has to know, for the current mode (dropout in training only)."""
        sparse = self.sparse_rows()
        if torch.compiler.is_compiling():  # numbers of a plan that is kept would be inputs of the graph
            return self._new_plan(sparse)
        plan = self._plans.get(self.training)
        if plan is None or plan.sparse is not sparse:
            plan = self._plans[self.training] = self._new_plan(sparse)
        return plan

    def _new_plan(self, sparse: tuple[SparseRows, ...] | None) -> Plan:
        return Plan(
            rows=tuple(self.rows.values()),
            scalings=tuple([adapter.scaling for adapter in self.values()]),
            shares_a=self.shares_a,
            dropout=float(self._dropout) if self.training else 0.0,
            path=self.config.path,
            sparse=sparse,
        )

    def sparse_rows(self) -> tuple[SparseRows, ...] | None:
        """What stands for each A in products, where its rule knows how and A is still as the rule draws it."""
        adapters = list(self.values())[: 1 if self.shares_a else None]
        if not adapters[0].scheme.A.rule.is_sparse or torch.compiler.is_compiling():
            return None
        if any(type(a.factor_A) is not nn.Parameter or a.factor_A.requires_grad for a in adapters):
            return None
        # An edit of A, or a move of it, may have made it another one.
        now = [(a.factor_A.data_ptr(), num_edits(a.factor_A), a.rank) for a in adapters]
        if now != self._sparse_of:
            self._sparse, self._sparse_of = _sparse_rows(adapters), now
        return self._sparse

    def packed_with(self, weight: Tensor) -> Tensor | None:
        """``[W; A]`` (d_out + sum of ranks, d_in) where the path is ``packed``, else ``None``.

        The weight and the A's become views of it, so nothing is held twice; only where the weight is narrower than the
        A's, these are copied into it anew each time. It is laid out anew when a move to another device or dtype has
        taken them apart.

        Raises:
            ValueError: W and A are on different devices, or A is trained.
        """
        if self.config.path != "packed":
            return None
        As = self.As
        is_mixed = any(A.dtype != weight.dtype for A in As)
        if torch.compiler.is_compiling():
            # Where the memory lies can't be asked now; an eager call before this one has laid it out, if there was one.
            # A tensor of which the weight is a view can't be written in either.
            is_laid_out = self._packed is not None and not is_mixed
            return self._packed if is_laid_out else torch.cat([weight, *[A.to(weight.dtype) for A in As]])
        if self._packed is None or self._packed.data_ptr() != weight.data_ptr():
            self._packed = self._lay_out(weight, As)
        if is_mixed:
            with torch.no_grad():
                self._packed[len(weight) :] = torch.cat([*As])
        return self._packed

    def _lay_out(self, weight: Tensor, As: Sequence[Tensor]) -> Tensor:
        if any(A.requires_grad for A in As):
            raise ValueError("Path 'packed' needs a frozen A; use 'two_gemm' or 'auto' for schemes that train A.")
        if any(A.device != weight.device for A in As):
            raise ValueError(
                f"Path 'packed' needs W and A on one device, got {weight.device} and {As[0].device}; use 'two_gemm' or "
                "'auto'."
            )
        with torch.inference_mode(mode=False), torch.no_grad():  # what is laid out outlives an inference
            packed = torch.cat([weight, *[A.to(weight.dtype) for A in As]])
            for tensor, part in zip([weight, *As], packed.split([len(weight), *map(len, As)]), strict=True):
                if tensor.dtype == part.dtype:
                    tensor.data = part
        return packed

    def A_weight(self, name: str, weight: Tensor) -> Tensor:
        """The rows of the (d_out, d_in) weight that slice ``name``'s A is for: all slices' rows where A is shared."""
        names = list(self) if self.shares_a else [name]
        return torch.cat([self.rows[n].take(weight, 0) for n in names])

    def reset_parameters(self, weight: Tensor, statistics: Mapping[str, Data] | None = None) -> None:
        """Draw all factors, given the (d_out, d_in) pretrained weight and, for rules that need data, statistics."""
        weight = weight.detach()
        for name, adapter in self.items():
            adapter.reset_parameters(self.rows[name].take(weight, 0), self.A_weight(name, weight), statistics)

    def joined(self, d_out: int) -> tuple[Tensor, Tensor]:
        """One A (sum of ranks, d_in) and one ``s B`` (d_out, sum of ranks), whose product is the whole update."""
        if len(self) == 1 and self.Bs[0].shape[0] == d_out:
            (adapter,) = self.values()
            return adapter.factor_A, adapter.scaling * adapter.factor_B
        blocks = []
        for name, adapter in self.items():
            block = adapter.factor_B.new_zeros(d_out, adapter.max_rank)
            self.rows[name].view(block, 0).copy_(self.rows[name].split(adapter.scaling * adapter.factor_B, 0))
            blocks.append(block)
        return torch.cat([*self.As]), sum(blocks[1:], blocks[0]) if self.shares_a else torch.cat(blocks, 1)

    def delta_weight(self, weight: Weight) -> Tensor:
        """The update of the whole (d_out, d_in) weight, zero in rows that no slice covers."""
        delta = torch.zeros(weight.shape, dtype=self.Bs[0].dtype, device=self.Bs[0].device)
        for name, adapter in self.items():
            self.rows[name].view(delta, 0).copy_(self.rows[name].split(adapter.delta_weight(), 0))
        return delta


def _sparse_rows(adapters: Sequence[LowRankAdapter]) -> tuple[SparseRows, ...] | None:
    """What stands for each A, the same object for equal ones; ``None`` if one A has nothing."""
    found: list[SparseRows] = []
    for i, adapter in enumerate(adapters):
        A = adapter.factor_A.detach()
        equal = next((j for j in range(i) if torch.equal(adapters[j].factor_A, A)), None)
        rows = adapter.scheme.A.rule.sparse_rows(A, adapter.rank) if equal is None else found[equal]
        if rows is None:
            return None
        found.append(rows)
    return tuple(found)
