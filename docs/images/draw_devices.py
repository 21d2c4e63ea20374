"""Draw `devices.svg`: what each of two devices holds and exchanges, under DDP and under FSDP2."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asym_lightning.report.figure_files import RC

FROZEN, TRAINED, INK, AWAY = "#c9d3df", "#0b3866", "#222222", "white"
COLUMNS = (("$W$", 0.0, 2.2, FROZEN, INK), ("$A$", 2.5, 0.7, FROZEN, INK), ("$B$", 3.5, 0.7, TRAINED, "white"))
HEIGHT, APART = 2.2, 5.6


def main(path: Path) -> None:
    """Draw it to a file."""
    with matplotlib.rc_context({**RC, "font.size": 9}):
        figure = Figure(figsize=(7.4, 2.3), layout="constrained")
        replicated, sharded = figure.subplots(1, 2)
        draw(replicated, "DDP: each device holds all", is_sharded=False)
        draw(sharded, "FSDP2: each device holds a part", is_sharded=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def draw(axes: Axes, title: str, *, is_sharded: bool) -> None:
    """Draw two devices and, between them, what travels in a step."""
    axes.set(xlim=(-0.2, APART + 4.4), ylim=(-1.7, HEIGHT + 0.9))
    axes.axis("off")
    axes.set_title(title, fontsize=10)
    for device in (0, 1):
        start = device * APART
        axes.text(start + 2.1, HEIGHT + 0.35, f"device {device}", ha="center", va="center")
        for name, left, width, fill, ink in COLUMNS:
            held = (device, 1 - device) if is_sharded else (0, 0)
            for half, is_away in enumerate(held):  # the lower half, and the upper one
                corner = (start + left, half * HEIGHT / 2)
                colour = AWAY if is_away else fill
                axes.add_patch(Rectangle(corner, width, HEIGHT / 2, fc=colour, ec="none"))
            axes.add_patch(Rectangle((start + left, 0), width, HEIGHT, fc="none", ec=INK, lw=0.7))
            middle = held.index(0) * HEIGHT / 2 + HEIGHT / 4 if is_sharded else HEIGHT / 2
            axes.text(start + left + width / 2, middle, name, ha="center", va="center", color=ink, fontsize=11)
    ends = {"arrowstyle": "<|-|>", "lw": 1.0, "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (APART - 0.1, HEIGHT / 2), (4.3, HEIGHT / 2), arrowprops=ends)
    travels = "gradients of $B$ and of the head, once a step"
    if is_sharded:
        travels = "each block, before its use; gradients of $B$ and of the head"
    axes.text((APART + 4.2) / 2, -0.8, travels, ha="center", va="center")


if __name__ == "__main__":
    main(Path(__file__).with_name("devices.svg"))
