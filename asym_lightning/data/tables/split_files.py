"""The files of a data module's splits, any of which may be a split of a data set on the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.tables.text_source import TextSource, hub_split

SplitFile = str | Path | None
"""A file, or `hf:owner/name:split`; None where there is none."""


def split_sources(
    train: SplitFile,
    val: SplitFile,
    test: SplitFile,
    predict: SplitFile,
    read: Callable[[Path], TextSource] = RecordFile,
    otherwise: Mapping[str, TextSource] = MappingProxyType({}),
) -> dict[str, TextSource]:
    """Return where each split comes from; to predict there is the test data where nothing else is.

    Args:
        train: Training data.
        val: Validation data.
        test: Test data.
        predict: Data to predict.
        read: What makes a source of a file.
        otherwise: Where splits that are not given come from, such as those of a data set of its own.

    Raises:
        ValueError: If there is none at all, or one is no split of the hub as it says.

    Example:
        >>> list(split_sources("a.jsonl", None, "hf:owner/name:test", None))
        ['train', 'test', 'predict']
    """
    files = {"train": train, "val": val, "test": test, "predict": predict}
    given = {
        split: hub_split(str(file)) or read(Path(file).expanduser())
        for split, file in files.items()
        if file is not None
    }
    sources = {**otherwise, **given}
    if not sources:
        raise ValueError("none of the files `train`, `val`, `test` and `predict` is given.")
    if "predict" not in sources and "test" in sources:
        sources["predict"] = sources["test"]
    return sources
