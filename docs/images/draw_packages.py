"""Draw `packages.svg`: which package may import which."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from asym_lightning.report.figure_files import RC

LAYERS = (  # from the top; each may import all below it, as pyproject.toml says
    ("cli",),
    ("callbacks", "modules", "strategies", "federated", "report", "estimate", "data"),
    ("lifecycle",),
    ("sharding",),
    ("analysis",),
    ("adapters",),
    ("core",),
)
WIDTH, ROW = 10.0, 0.8


def main(path: Path) -> None:
    """Draw it to a file."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.6, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(-0.2, WIDTH + 1.2), ylim=(-len(LAYERS) * ROW, 0.1))
        axes.axis("off")
        for number, names in enumerate(LAYERS):
            width = WIDTH / len(names)
            for place, name in enumerate(names):
                fill, ink = ("#0b3866", "white") if name == "adapters" else ("#e3e8ef", "#222222")
                corner = (place * width + 0.08, -(number + 1) * ROW + 0.12)
                box = FancyBboxPatch(corner, width - 0.16, ROW - 0.24, "round,pad=0.04", fc=fill, ec="#222222", lw=0.6)
                axes.add_patch(box)
                middle = (place * width + width / 2, -(number + 0.5) * ROW)
                axes.text(*middle, name, ha="center", va="center", color=ink, fontsize=9)
        ends = {"arrowstyle": "-|>", "lw": 1.0, "color": "#222222"}
        axes.annotate("", (WIDTH + 0.5, -len(LAYERS) * ROW + 0.1), (WIDTH + 0.5, -0.1), arrowprops=ends)
        axes.text(WIDTH + 0.85, -len(LAYERS) * ROW / 2, "imports", rotation=270, va="center", ha="center", fontsize=9)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


if __name__ == "__main__":
    main(Path(__file__).with_name("packages.svg"))
