"""Unit vectors: A reads some of the inputs as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
from asym_lightning.adapters.kernels.sparse_rows import ChosenInputs, SparseRows


@register_init
class Coordinate(InitRule):
    """Each row is the unit vector of an input that is drawn without replacement, so ``A x`` is a choice of inputs.

    B is then a subset of the columns of a full update, trained alone. In eager mode and without dropout no
    product with A is computed: inputs are picked, and B is added to columns of the weight.
    """

    name = "coordinate"
    nests = True
    is_orthonormal = True
    is_sparse = True

    def rows(self, draw: Draw) -> Tensor:
        """Unit vectors, in the order in which the inputs are drawn: so the first ones do not depend on the rank."""
        chosen = torch.randperm(draw.dim, generator=draw.generator)[: draw.rank]
        return torch.zeros(draw.rank, draw.dim, dtype=torch.float64).scatter_(1, chosen[:, None], 1.0)

    def sparse_rows(self, A: Tensor, rank: int) -> SparseRows | None:
        """The inputs, where each row in use is a unit vector still."""
        inputs = A[:rank].argmax(1)
        drawn = torch.zeros_like(A)
        drawn[:rank].scatter_(1, inputs[:, None], 1.0)
        return ChosenInputs(len(A), inputs) if torch.equal(A, drawn) else None
