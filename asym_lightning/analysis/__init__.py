"""Analyses of adapters as stateless functions."""

from asym_lightning.analysis.bounds import generalization_bound
from asym_lightning.analysis.least_squares import least_squares_gap
from asym_lightning.analysis.similarity import cca_similarity
from asym_lightning.analysis.spectrum import UpdateSpectrum, update_spectrum

__all__ = ["UpdateSpectrum", "cca_similarity", "generalization_bound", "least_squares_gap", "update_spectrum"]
