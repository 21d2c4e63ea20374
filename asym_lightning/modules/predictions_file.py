"""The file that classification and regression predictions are written to."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asym_lightning.core.files import atomic_file


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one row.

    Args:
        row: Number of the row in its file, which decides the order.
        identifier: Name of the row.
        label: Predicted class or score.
        probabilities: Probability of each class; empty in regression.
    """

    row: int
    identifier: str
    label: str
    probabilities: Sequence[float] = ()


def write_predictions(path: Path, predictions: Iterable[Prediction], label_names: Sequence[str] = ()) -> None:
    """Write a tsv file: `id`, `label`, and a column with the probability of each class.

    Args:
        path: The file; its folder is made if need be.
        predictions: The predictions in any order.
        label_names: Names of the classes.
    """
    with atomic_file(path) as staging, staging.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["id", "label", *(f"probability_{name}" for name in label_names)])
        for prediction in sorted(predictions, key=lambda prediction: prediction.row):
            probabilities = [f"{probability:.6f}" for probability in prediction.probabilities]
            writer.writerow([prediction.identifier, prediction.label, *probabilities])
