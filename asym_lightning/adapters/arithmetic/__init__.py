"""Arithmetic of adapters that share one frozen A: there an adapter is its B, and what is done to B's is exact."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.adapters.arithmetic.combine import combined
    from asym_lightning.adapters.arithmetic.join import concatenation, projection
    from asym_lightning.adapters.arithmetic.linear import difference, interpolation, mean, negation, weighted_sum
    from asym_lightning.adapters.arithmetic.sparsify import dropped, sign_election, trimmed
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = [
    "combined",
    "concatenation",
    "difference",
    "dropped",
    "interpolation",
    "mean",
    "negation",
    "projection",
    "sign_election",
    "trimmed",
    "weighted_sum",
]
