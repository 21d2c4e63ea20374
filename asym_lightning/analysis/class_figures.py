"""Pictures of a classifier's scores; matplotlib is imported where one is drawn."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asym_lightning.analysis.class_scores import Values
from asym_lightning.core.markup import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 20  # classes whose numbers still fit into the cells
MOST_NAMED = 60  # classes whose names still fit beside each other
LONGEST_NAME = 24  # characters
INK, ACCENT, PALE = "#222222", "#0b3866", "#9db7d1"


def confusion_figure(values: Values, names: Sequence[str], title: str = "") -> Figure:
    """Draw the confusion matrix: a row a class, shaded by the share of its samples, with their number if there is room.

    Args:
        values: What :func:`~asym_lightning.analysis.class_scores.class_metrics` computed.
        names: Names of the classes; those without a sample are marked.
        title: Title above it; "" for none.
    """
    from matplotlib.figure import Figure

    counts, shares = values["confusion"].tolist(), values["confusion_shares"].tolist()
    num = len(names)
    shown = [_short(name) for name in names]
    side = min(12.0, max(2.2, 0.42 * num if num <= MOST_NUMBERED else 0.2 * num))
    margin = 0.9 + (0.075 * max(map(len, shown)) if num <= MOST_NAMED else 0.3)
    figure = Figure(figsize=(side + margin + 0.9, side + margin + 0.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = 9 if num <= MOST_NUMBERED else 7
    if num <= MOST_NUMBERED:
        for row in range(num):
            for column in range(num):
                colour = "white" if shares[row][column] > 0.5 else INK
                text = f"{counts[row][column]:,}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 - len(text) // 4)
    if num <= MOST_NAMED:
        marked = [name if sum(row) else f"{name} (no sample)" for name, row in zip(shown, counts, strict=True)]
        rotation, side_of_text = (90, "center") if num > MOST_NUMBERED else (45, "right")
        axes.set_xticks(range(num), shown, fontsize=small, parse_math=False, rotation=rotation, ha=side_of_text)
        axes.set_yticks(range(num), marked, fontsize=small, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25, label="share of the class's samples")
    bar.outline.set_visible(False)
    if title:
        axes.set_title(title, fontsize=11, parse_math=False)
    return figure


def reliability_figure(values: Values, title: str = "") -> Figure:
    """Draw accuracy over confidence in bins, the diagonal where probabilities are right, and the samples' shares.

    Args:
        values: What :func:`~asym_lightning.analysis.class_scores.class_metrics` computed.
        title: Title above it; "" for none.
    """
    from matplotlib.figure import Figure

    bins = [(confidence, accuracy, share) for accuracy, confidence, share in values["reliability"].T.tolist() if share]
    confidences, accuracies, shares = zip(*bins, strict=True)
    figure = Figure(figsize=(4.2, 5.0), dpi=150, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (3, 3)), label="calibrated")
    above.vlines(confidences, accuracies, confidences, color=PALE, linewidth=3, label="gap")
    sizes = [12 + 150 * share for share in shares]  # a bin of few samples says little
    above.scatter(confidences, accuracies, s=sizes, color=ACCENT, clip_on=False, zorder=3, label="this model")
    above.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="accuracy")
    above.grid(color="#dddddd", linewidth=0.6)
    above.legend(loc="upper left", frameon=False, fontsize=9)
    error = float(values["calibration_error"])
    above.text(0.98, 0.04, f"calibration error {error:.3f}", ha="right", transform=above.transAxes, fontsize=9)
    below.bar(confidences, shares, width=0.04, color=ACCENT)
    below.set(xlabel="confidence, the probability of the predicted class", ylabel="share of\nsamples", ylim=(0, None))
    for axes in (above, below):
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        above.set_title(title, fontsize=11, parse_math=False)
    return figure


def png(figure: Figure) -> bytes:
    """Return a picture as a PNG file."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Of names in scripts that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from (current )?font")
        figure.savefig(out, format="png")
    return out.getvalue()


def _short(name: str) -> str:
    text = one_line(name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
