"""The adapted weights of experts that a mixture keeps in one parameter, (experts, d_out, d_in) or transposed."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from asym_lightning.adapters.layers.expert_weight import ExpertWeight, whole_plan
from asym_lightning.adapters.layers.held_parameter import AdaptedHeldParameter, HeldParameter
from asym_lightning.adapters.layers.kinds.registry import register_kind
from asym_lightning.adapters.rows import Rows
from asym_lightning.core.private_names import experts_implementation

_NAME = re.compile(r"Experts?(?![a-z])|ParallelExperts")
_UP, _DOWN = ("gate_up_proj", "up_proj", "gate_proj"), ("down_proj",)


class ExpertMatrix(HeldParameter):
    """A parameter with the weights of all experts.

    Args:
        owner: The module of the experts.
        parameter: Name of the parameter in it.
    """

    def __init__(self, owner: nn.Module, parameter: str) -> None:
        super().__init__(owner, parameter)
        self.is_transposed = _is_transposed(owner, parameter)


def _is_transposed(owner: nn.Module, parameter: str) -> bool:
    """Whether it is (experts, d_in, d_out): said by transformers, or by which sides of two projections fit."""
    said = getattr(owner, "is_transposed", None)
    if said is not None:
        return bool(said)
    shapes = {name: p.shape for name, p in owner._parameters.items() if p is not None and p.dim() == 3}
    up = next((shapes[name] for name in _UP if name in shapes), None)
    down = next((shapes[name] for name in _DOWN if name in shapes), None)
    return up is not None and down is not None and up[2] != down[1] and up[1] == down[2]


@register_kind
class AdaptedExpertMatrix(AdaptedHeldParameter, ExpertMatrix):
    """Every expert's projection gets an update: A is one for all of them, B has rows for each.

    So the update is low-rank in the matrix of all experts' rows, (experts * d_out, d_in). Where experts do not share A,
    each is a slice of that matrix with factors of its own. The parameter is shown to the owner's code as an
    :class:`ExpertWeight` while its forward pass runs. Dropout is not drawn for it.
    """

    host = ExpertMatrix
    own_role = "experts"
    what = "experts"

    @classmethod
    def parts_of(cls, module: nn.Module) -> dict[str, nn.Module]:
        """The parameters of three dimensions of a module whose class is called experts."""
        if not _NAME.search(type(module).__name__):
            return {}
        return {n: ExpertMatrix(module, n) for n, p in module._parameters.items() if p is not None and p.dim() == 3}

    def weight_matrix(self) -> Tensor:
        """(experts * d_out, d_in); a copy where the parameter is transposed."""
        return (self.whole.mT if self.is_transposed else self.whole).flatten(0, 1)

    def delta_weight(self) -> Tensor:
        """In the parameter's shape."""
        delta = self.adapters.delta_weight(self.weight_matrix()).unflatten(0, (len(self.whole), -1))
        return delta.mT if self.is_transposed else delta

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(experts * d_out, d_in)."""
        num_experts, d_out, d_in = layer.whole.mT.shape if layer.is_transposed else layer.whole.shape
        return num_experts * d_out, d_in

    @classmethod
    def parts_with_own_A(cls, layer: Any) -> dict[str, Rows]:
        """Each expert by its number."""
        d_out = cls.shape_of(layer)[0] // len(layer.whole)
        return {str(i): Rows(i * d_out, d_out) for i in range(len(layer.whole))}

    def view(self) -> Tensor:
        """The parameter as the owner's forward pass gets it."""
        if not _is_understood(self.holder()):
            return super().view()
        first, *others = self.adapters.values()
        # Cut into experts once: a cut for each would give each a gradient of the size of all.
        Bs = self.adapters.Bs if others else first.factor_B.unflatten(0, (len(self.whole), -1)).unbind()
        plan = whole_plan(first.scaling, Bs[0].shape[0], self.adapters.config.path)
        return ExpertWeight.of(self.whole, self.adapters.As, Bs, plan, is_transposed=self.is_transposed)

    def to_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """(experts * rank, d_in) and (d_out, rank * experts), with the experts' columns of B interleaved."""
        num_experts = len(self.whole)
        B = B.unflatten(0, (num_experts, -1))
        if len(self.adapters) == 1:
            As, Bs = A.expand(num_experts, *A.shape), B
        else:  # blocks on the diagonal
            As = A.unflatten(0, (num_experts, -1))
            Bs = torch.stack([part[:, i * As.shape[1] : (i + 1) * As.shape[1]] for i, part in enumerate(B)])
        if self._is_turned():
            As, Bs = Bs.mT, As.mT
        return As.flatten(0, 1), Bs.permute(1, 2, 0).flatten(1)

    def from_peft(self, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`to_peft`."""
        num_experts = len(self.whole)
        As, Bs = A.unflatten(0, (num_experts, -1)), B.unflatten(1, (-1, num_experts)).permute(2, 0, 1)
        if self._is_turned():
            As, Bs = Bs.mT, As.mT
        if len(self.adapters) == 1 and all(other.equal(As[0]) for other in As):
            return As[0], Bs.flatten(0, 1)
        return As.flatten(0, 1), torch.block_diag(*Bs)

    def peft_rank(self, rank: int) -> int:
        """PEFT counts the rank of one expert."""
        return rank if len(self.adapters) == 1 else rank // len(self.whole)

    def _is_turned(self) -> bool:
        """PEFT believes the module, whether a parameter is transposed, and takes d_in and d_out accordingly."""
        return self.is_transposed != bool(getattr(self.holder(), "is_transposed", False))


def _is_understood(owner: Any) -> bool:
    """Whether the products are torch's own: kernels of other libraries take the numbers as they lie in memory."""
    chosen = experts_implementation(getattr(owner, "config", None))
    return chosen in (None, "eager", "batched_mm", "grouped_mm") and not torch.compiler.is_compiling()
