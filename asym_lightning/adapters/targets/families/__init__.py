"""Families of models, a file for each group of like ones; a file that lies here is found, whatever its name."""

from asym_lightning.core.discovery import import_modules

import_modules(__name__)
