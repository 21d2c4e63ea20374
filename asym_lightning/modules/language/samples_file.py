"""Samples of generated text, in a file of the run and in the loggers that can show text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from asym_lightning.core.files import write_text

Sample = Mapping[str, Any]


def write_jsonl(path: Path, samples: Iterable[Sample]) -> None:
    """Write one JSON object a line; the folder is made if need be."""
    write_text(path, "".join(json.dumps(dict(sample), ensure_ascii=False) + "\n" for sample in samples))


def log_samples(loggers: Iterable[Logger], name: str, samples: Sequence[Sample], step: int) -> None:
    """Show samples in the loggers that can: as a table in Weights & Biases, as text in TensorBoard.

    Args:
        loggers: The trainer's loggers; those that know neither table nor text are left out.
        name: What the samples are, such as `val/samples`.
        samples: Objects with the same keys.
        step: Step of the run.
    """
    if not samples:
        return
    columns = list(samples[0])
    cells = [[str(sample[column]) for column in columns] for sample in samples]
    for logger in loggers:
        experiment = getattr(logger, "experiment", None)
        if hasattr(logger, "log_table"):
            logger.log_table(key=name, columns=columns, data=cells, step=step)
        elif experiment is not None and hasattr(experiment, "add_text"):
            experiment.add_text(name, markdown_table(columns, cells), step)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, for loggers that render it.

    >>> print(markdown_table(["a", "b"], [["1", "x"]]))
    | a | b |
    | --- | --- |
    | 1 | x |
    """
    lines = [list(columns), ["---"] * len(columns), *rows]
    escaped = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)
