"""Draw `overview.svg`: a layer with A frozen and B trained, and what each arm makes of digits turned upside down."""

import csv
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asym_lightning.report.figure_files import MARKERS, RC
from asym_lightning.report.style import ReportStyle

ROOT = Path(__file__).parents[2]
FROZEN, TRAINED, INK = "#e3e8ef", "#0b3866", "#222222"
NAMES = {
    "b_only_r8": "B alone",
    "a_only_r8": "A alone",
    "lora_r8": "LoRA, both",
    "full": "everything",
    "head_only": "head",
}


def main(path: Path) -> None:
    """Draw it to a file."""
    with matplotlib.rc_context({**RC, "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8}):
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        layer, scores = figure.subplots(1, 2, width_ratios=[1.15, 1])
        draw_layer(layer)
        draw_scores(scores)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def draw_layer(axes: Axes) -> None:
    """Draw the layer as boxes and arrows, from the input below to the output above."""
    axes.set(xlim=(0, 10), ylim=(0, 8.3))
    axes.axis("off")
    box(axes, 0.2, 1.8, 4.3, 4.5, "$W$", "frozen", FROZEN, INK)
    box(axes, 5.5, 1.8, 4.3, 1.6, "$A$", "random, orthonormal, frozen", FROZEN, INK)
    box(axes, 5.5, 4.7, 4.3, 1.6, "$B$", "trained", TRAINED, "white")
    axes.text(5.0, 0.3, "$x$", ha="center", va="center", fontsize=12)
    axes.text(5.0, 7.8, r"$W x + \frac{\alpha}{r}\, B A x$", ha="center", va="center", fontsize=12)
    for start, end in (
        ((4.7, 0.55), (2.35, 1.7)),
        ((5.3, 0.55), (7.65, 1.7)),
        ((7.65, 3.5), (7.65, 4.6)),
        ((2.35, 6.4), (4.3, 7.3)),
        ((7.65, 6.4), (5.7, 7.3)),
    ):
        arrow(axes, start, end)
    axes.text(7.45, 4.05, "all that is kept: $A x$", fontsize=7.5, ha="right", va="center", color=INK)


def box(axes: Axes, x: float, y: float, width: float, height: float, name: str, text: str, fill: str, ink: str) -> None:
    """Draw a matrix with its name and what is done with it."""
    axes.add_patch(matplotlib.patches.FancyBboxPatch((x, y), width, height, "round,pad=0.05", fc=fill, ec=INK, lw=0.7))
    axes.text(x + width / 2, y + height * 0.66, name, ha="center", va="center", color=ink, fontsize=11)
    axes.text(x + width / 2, y + height * 0.24, text, ha="center", va="center", color=ink, fontsize=7.5)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 0.9, "color": INK, "shrinkA": 0, "shrinkB": 0})


def draw_scores(axes: Axes) -> None:
    """Draw test accuracy by trained parameters, from the table of the benchmark."""
    with (ROOT / "benchmarks/results/digits_table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    looks = ReportStyle().looks(row["arm"] for row in rows)
    for row in rows:
        look, x, y = looks[row["arm"]], int(row["trained"]), float(row["test_mean"])
        axes.errorbar(
            x, y, float(row["test_error"]), color=look.colour, marker=MARKERS[look.number % 6], capsize=2, ms=5
        )
        place, side = ((-7, 0), "right") if row["arm"] in ("full", "a_only_r8") else ((7, 0), "left")
        axes.annotate(NAMES[row["arm"]], (x, y), place, textcoords="offset points", ha=side, va="center", fontsize=8)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy", xlim=(600, 1.3e6))
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(Path(__file__).with_name("overview.svg"))
