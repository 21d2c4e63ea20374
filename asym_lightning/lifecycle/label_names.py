"""Names of classes: they go wherever what was trained goes, so that it names what it predicts without its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from asym_lightning.core.files import read_json, write_json
from asym_lightning.core.kinds import check_value
from asym_lightning.core.run_files import ADAPTER_CONFIG
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint

LABELS_FILE = "label_names.json"


@runtime_checkable
class HasLabelNames(Protocol):
    """A module that tells classes apart.

    Attributes:
        label_names: Names of the classes by number; None where they are not known.
    """

    label_names: Sequence[str] | None

    def adopt_label_names(self, names: Sequence[str]) -> None:
        """Take names where none are known."""


def save_label_names(names: Sequence[str] | None, directory: Path) -> None:
    """Write the names of classes, where they are known, beside an adapter."""
    if names:
        write_json(directory / LABELS_FILE, list(names))


def saved_label_names(path: str | Path) -> list[str] | None:
    """Names of the classes that a checkpoint or an adapter was trained on; None where it does not say.

    Args:
        path: A file of a checkpoint, or an adapter's directory.

    Raises:
        ValueError: What is there holds no names, or is no checkpoint.
    """
    path = Path(path)
    if is_adapter_directory(path):
        path = path / LABELS_FILE
        names = read_json(path) if path.is_file() else None
    else:
        names = read_checkpoint(path).get("hyper_parameters", {}).get("label_names") if path.is_file() else None
    try:
        check_value("label_names", names, list[str] | None)
    except TypeError as error:
        raise ValueError(f"`{path}` holds no names of classes: {error}") from error
    return names


def shared_label_names(adapters: Sequence[Path], heads_of: int | None = None) -> list[str] | None:
    """Names of the classes of combined heads: those of one adapter, or of all; None where none says any.

    Args:
        adapters: Their directories.
        heads_of: Number of the adapter whose heads are taken; None means that heads of all are combined.

    Raises:
        ValueError: Heads are combined that tell other classes apart.
    """
    named = [(adapter, saved_label_names(adapter)) for adapter in adapters]
    if heads_of is not None:
        return named[heads_of][1]
    told = [(adapter, names) for adapter, names in named if names is not None]
    for adapter, names in told:
        first, known = told[0]
        if names != known:
            raise ValueError(
                f"`{first}` and `{adapter}` tell other classes apart, so their heads can't be combined: choose those "
                "of one by `--heads-of`."
            )
    return told[0][1] if told else None


def is_adapter_directory(path: str | Path) -> bool:
    """Whether a path leads to an adapter, and not to a checkpoint."""
    return Path(path, ADAPTER_CONFIG).is_file()
