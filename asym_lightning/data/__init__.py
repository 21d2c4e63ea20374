"""Lightning data modules, one file a data set family."""

from asym_lightning.data.digits import DigitsDataModule

__all__ = ["DigitsDataModule"]
