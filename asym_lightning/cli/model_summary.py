"""What a run has before it trains, without what is the same in all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.callbacks import ModelSummary


class TrainedParts(ModelSummary):
    """Lightning's summary of a model, of which it leaves out parts without parameters, such as metrics, and FLOPs.

    Lightning counts FLOPs where a module has an `example_input_array`, which none here has: they are always 0.

    Args:
        max_depth: Depth of the parts that are listed; 0 lists none.
    """

    @staticmethod
    def summarize(
        summary_data: Sequence[tuple[str, Sequence[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Print a line for each part, and how much of all trains."""
        columns = dict(summary_data)
        parts = zip(columns["Name"], columns["Type"], columns["Params"], strict=True)
        rows = [(name, kind, number.strip()) for name, kind, number in parts if number.strip() != "0"]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, kind, number in rows:
            print(f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {number:>{widths[2]}}")
        share = trainable_parameters / max(1, total_parameters)
        print(f"trains {trainable_parameters:,} of {total_parameters:,} parameters ({share:.2%})")
