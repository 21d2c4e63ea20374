"""Lightning data modules, one file a data set family."""

from asym_lightning.data.digits import DigitsDataModule
from asym_lightning.data.glue import GLUEDataModule
from asym_lightning.data.text_files import TextFilesDataModule

__all__ = ["DigitsDataModule", "GLUEDataModule", "TextFilesDataModule"]
