"""Where a split of texts comes from: a local file or the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from asym_lightning.core.extras import extra_named
from asym_lightning.core.messages import shown
from asym_lightning.core.private_names import fingerprint
from asym_lightning.data.tables.text_table import TextTable, read_text_table, text_table_parts

ROWS_AT_ONCE = 20_000
"""Rows of a large source that are in memory at once: some hundred megabytes of them."""


class TextSource(Protocol):
    """Something that can be read into a table, and tells cheaply whether it is still the same."""

    def fingerprint(self) -> str:
        """Return a text that changes when the content, or how it is read, changes."""

    def read(self) -> TextTable:
        """Read everything."""


@runtime_checkable
class PartedSource(TextSource, Protocol):
    """A source of any number of rows, of which a part at a time is in memory."""

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Read the source part by part, each of as many rows; one without rows is one part without rows."""


def folder_of(source: TextSource) -> Path:
    """Return what relative paths in a source start from: its folder, or that of its file.

    Of a data set of the hub, whose paths lead nowhere here, that is the current folder.
    """
    path: Path = getattr(source, "path", None) or Path()
    return path if path.is_dir() else path.parent


@dataclass(frozen=True)
class LocalFile:
    """A csv, tsv, jsonl or parquet file; see `read_text_table` for the arguments."""

    path: Path
    header: tuple[str, ...] | None = None
    skip_bad_rows: bool = False

    def fingerprint(self) -> str:
        """Hash the bytes, so that a file that was copied or touched is still the same.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {str(self.path)!r}.")
        with self.path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return f"{digest.hexdigest()} {self.path.suffix} {self.header} {self.skip_bad_rows}"

    def read(self) -> TextTable:
        """Read the file."""
        return read_text_table(self.path, self.header, self.skip_bad_rows)

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Read the file part by part."""
        return text_table_parts(self.path, self.header, self.skip_bad_rows, num_rows=num_rows)


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set of the hub.

    Args:
        repository: Data set, such as `nyu-mll/glue`.
        name: Configuration of the data set, such as `rte`; None where there is but one.
        split: Split, such as `train`.
        is_decoded: Whether numbers of classes are read as the names that the data set has for them.
    """

    repository: str
    name: str | None
    split: str
    is_decoded: bool = False

    def fingerprint(self) -> str:
        """Return the fingerprint that `datasets` keeps."""
        return f"{fingerprint(self._load())} {self.is_decoded or ''}".rstrip()

    def read(self) -> TextTable:
        """Download the split, or take it from the cache of `datasets`; sound and pictures are read row by row."""
        return self._table(self._load())

    def parts(self, num_rows: int) -> Iterator[TextTable]:
        """Read the split part by part, from the cache of `datasets`."""
        data = self._load()
        for start in range(0, max(len(data), 1), num_rows):
            yield self._table(data.select(range(start, min(start + num_rows, len(data)))), start)

    def _table(self, data: Any, first_row: int = 0) -> TextTable:
        files = {name: raw for name, feature in data.features.items() if (raw := _not_decoded(feature)) is not None}
        columns: dict[str, list[Any]] = data.remove_columns([*files]).to_dict()
        columns |= {name: data.cast_column(name, raw)[name] for name, raw in files.items()}
        for name, values in columns.items() if self.is_decoded else ():
            feature = getattr(data.features[name], "feature", data.features[name])  # of a list: that of its entries
            if (names := getattr(feature, "names", None)) is not None:
                columns[name] = [_named(value, names) for value in values]
        source = f"{self.repository} ({self.name or 'default'}, {self.split})"
        return TextTable(source, columns, first_row=first_row)

    def _load(self):  # type: ignore[no-untyped-def]  # `datasets` takes a second to import
        with extra_named(self.repository):
            import datasets
        return datasets.load_dataset(self.repository, self.name, split=self.split)


def _not_decoded(feature: Any) -> Any:
    """The feature of `datasets` by which sound or pictures are their files' bytes; None where it has neither."""
    if (inner := getattr(feature, "feature", None)) is not None and hasattr(inner, "decode"):  # a list of them
        return type(feature)(_not_decoded(inner))
    return dataclasses.replace(feature, decode=False) if hasattr(feature, "decode") else None


def in_parts(source: TextSource, num_rows: int) -> Iterator[TextTable]:
    """Read a source in parts of as many rows: one at a time where it can, else cut from the whole."""
    return source.parts(num_rows) if isinstance(source, PartedSource) else source.read().parts(num_rows)


def _named(value: Any, names: Sequence[str]) -> Any:
    """Classes by name: one, or a list of them; those that are not known stay as they are.

    >>> _named([1, 0, -1], ["no", "yes"])
    ['yes', 'no', -1]
    """
    if isinstance(value, list):
        return [_named(part, names) for part in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def hub_split(name: str) -> HubSplit | None:
    """Return the split that a name beginning with `hf:` stands for, in place of a file; None for other names.

    Args:
        name: `hf:` and the data set, its configuration where it has several, and the split.

    Raises:
        ValueError: If it is not of this form.

    Example:
        >>> hub_split("hf:nyu-mll/glue:rte:train").name, hub_split("train.jsonl")
        ('rte', None)
    """
    if not name.startswith("hf:"):
        return None
    parts = name.split(":")[1:]
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{shown(name)} must be `hf:owner/name:split` or `hf:owner/name:configuration:split`.")
    return HubSplit(parts[0], parts[1] if len(parts) == 3 else None, parts[-1], is_decoded=True)


def local_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of the named files that the folder holds, or None."""
    return next((folder / name for name in names if (folder / name).is_file()), None)
