"""Analyses of adapters as stateless functions."""

from typing import TYPE_CHECKING

from asym_lightning.core.lazy import lazy_imports

if TYPE_CHECKING:
    from asym_lightning.analysis.bounds import generalization_bound
    from asym_lightning.analysis.least_squares import least_squares_gap
    from asym_lightning.analysis.similarity import cca_similarity
    from asym_lightning.analysis.spectrum import UpdateSpectrum, update_spectrum
else:
    __getattr__, __dir__ = lazy_imports(__name__)

__all__ = ["UpdateSpectrum", "cca_similarity", "generalization_bound", "least_squares_gap", "update_spectrum"]
