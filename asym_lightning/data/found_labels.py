"""Names of classes that nobody gave: those of the training data, or those of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asym_lightning.data.text_source import TextSource
from asym_lightning.data.text_table import TextTable


def found_labels(
    train: TextSource | None, of_model: Sequence[str] | None, of_table: Callable[[TextTable], Sequence[str]]
) -> list[str]:
    """Return the classes of the training data, or those that the model was trained on where that is not there.

    Args:
        train: The training data; None where none is given.
        of_model: What the model knows; None where it knows none.
        of_table: Finds the classes of the training data.

    Raises:
        ValueError: If there is neither, or the training data is empty.
    """
    path = getattr(train, "path", None)
    if of_model is not None and (train is None or (path is not None and not path.exists())):
        return list(of_model)
    if train is None:
        raise ValueError(
            "`label_names` must be given where there is no training file to take them from, and no `--ckpt_path`."
        )
    table = train.read()
    table.check_not_empty("train")
    return list(of_table(table))
