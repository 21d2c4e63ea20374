"""Audio in one folder a class, and audio without classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from asym_lightning.data.tables.text_table import TextTable

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au")


@dataclass(frozen=True)
class AudioFolder:
    """A folder of audio as a table: `folder/<class>/*.wav`, or without classes where there is audio right in it.

    Args:
        path: The folder.
        file_column: What the column of paths is called, which are those within the folder.
        label_column: What the column of the classes is called; None where classes are not asked for.
    """

    path: Path
    file_column: str
    label_column: str | None = None

    def fingerprint(self) -> str:
        """Hash paths and sizes."""
        found = [f"{path.relative_to(self.path)} {path.stat().st_size}" for path in self._files()]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()

    def read(self) -> TextTable:
        """List the files, by class and then by path.

        Raises:
            ValueError: If there are none.
        """
        files = [path.relative_to(self.path) for path in self._files()]
        if not files:
            raise ValueError(f"{self.path} has no audio ({', '.join(SUFFIXES)}).")
        columns: dict[str, list[str]] = {self.file_column: [str(file) for file in files]}
        if self.label_column is not None and all(len(file.parts) > 1 for file in files):
            columns[self.label_column] = [file.parts[0] for file in files]
        return TextTable(str(self.path), columns)

    def _files(self) -> list[Path]:
        found = (path for path in self.path.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        return sorted(path for path in found if not path.name.startswith("."))
