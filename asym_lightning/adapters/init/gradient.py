"""Leading directions of the weight's gradient, as in LoRA-GA."""

from __future__ import annotations

from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
from asym_lightning.adapters.init.subspaces import completed, leading_directions


@register_init
class GradientDirections(InitRule):
    """A's rows are the leading right singular vectors of the gradients G_b: where W would move first.

    G_b (d_out, d_in) is the gradient by the weight on calibration batch b. Of all A with orthonormal rows this one
    keeps most of ``sum_b ||G_b||^2`` in the gradients ``G_b A^T`` of B.

    Cost: a product of the weight's size a token, and leading singular vectors. Stored with the adapter.

    Source: Wang et al. 2024 (LoRA-GA, arXiv 2407.05000), which takes one batch, B from it too, and goes on to train A.
    """

    name = "gradient"
    needs_data = True
    nests = True
    is_orthonormal = True

    def rows(self, draw: Draw) -> Tensor:
        """Orthonormal rows, float64."""
        assert draw.statistics is not None
        return completed(leading_directions(draw.statistics.weight_gradients(), draw.rank), draw)
