"""Analyses of adapters as stateless functions."""

from asym_lightning.analysis.spectrum import UpdateSpectrum, update_spectrum

__all__ = ["UpdateSpectrum", "update_spectrum"]
