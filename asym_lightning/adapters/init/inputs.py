"""Leading directions of the inputs, as in EVA."""

from __future__ import annotations

from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
from asym_lightning.adapters.init.subspaces import completed, leading_directions


@register_init
class InputDirections(InitRule):
    """A's rows are the leading eigenvectors of S = E[x x^T]: where the inputs are large.

    Of all A with orthonormal rows this one keeps most of ``E ||x||^2`` in ``A x``. It knows nothing of the task.

    Cost: S, which is d_in^2 operations a token, and its leading eigenvectors. Stored with the adapter.

    Source: Paischer et al. 2024 (EVA, arXiv 2410.07170), which goes on to train A and shares ranks out among layers.
    Here S is not centred, for the adapter sees the mean too.
    """

    name = "inputs"
    needs_data = True
    nests = True
    is_orthonormal = True

    def rows(self, draw: Draw) -> Tensor:
        """Orthonormal rows, float64."""
        assert draw.statistics is not None
        return completed(leading_directions(draw.statistics.inputs, draw.rank), draw)
