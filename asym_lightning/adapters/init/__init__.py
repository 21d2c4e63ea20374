"""Rules by which A and B start, one a file; a file that lies here is found, whatever its name."""

from asym_lightning.core.discovery import import_modules

import_modules(__name__)
