"""Leading directions of the preconditioned gradient."""

from __future__ import annotations

from torch import Tensor

from asym_lightning.adapters.init.rule import Draw, InitRule, register_init
from asym_lightning.adapters.init.subspaces import completed, orthonormalized, whitened_gradient_directions


@register_init
class WhitenedGradient(InitRule):
    """A's rows span what B needs to see for a first step of the weight by ``G S^(-1)``, made orthonormal.

    S = E[x x^T] are the inputs, G_b the gradients by the weight on calibration batches. The span is that of
    ``V_r^T S^(-1/2)``, V_r the leading eigenvectors of ``S^(-1/2) (sum_b G_b^T G_b) S^(-1/2)``; see
    :func:`~asym_lightning.adapters.init.subspaces.whitened_gradient_directions` for why. The plain gradient
    ``G = g^T x`` favours directions in which inputs are large, whether or not the loss depends on them; the
    preconditioned one does not.

    Among all A with that span the best B gives the same update. Orthonormal rows keep what rests on ``A A^T = I``:
    exact singular values of the update, and a change of rank that leaves the function as it is.

    Cost: S, which is d_in^2 operations a token, the gradients, a product of the weight's size a token, and a Cholesky
    decomposition. Stored with the adapter.

    Source: Theorem 4.3 of Zhu et al. 2024 for the best A of a given update; that the update is the preconditioned
    gradient is an assumption of ours.
    """

    name = "whitened_gradient"
    needs_data = True
    nests = True
    is_orthonormal = True

    def rows(self, draw: Draw) -> Tensor:
        """Orthonormal rows, float64."""
        assert draw.statistics is not None
        gradients, inputs = draw.statistics.weight_gradients(), draw.statistics.inputs
        return completed(orthonormalized(whitened_gradient_directions(gradients, inputs, draw.rank)), draw)
