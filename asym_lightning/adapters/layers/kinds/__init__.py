"""Kinds of adapted layers, one a file; a file that lies here is found, whatever its name.

A kind whose host's layer comes from another library lies in a folder of that library's name, which is read when a model
brings a layer of the library: so nothing is imported for kinds that nobody has.
"""

from asym_lightning.core.discovery import import_modules

import_modules(__name__)
