"""Draw `report.svg`: four charts of a page that `asym-lightning report` wrote, side by side."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks/results/digits_table.html"
CHARTS = (
    "Learning curves",
    "Choice of the learning rate",
    "Score against trained parameters",
    "Spectrum of the update",
)
WIDTH, HEIGHT = 380, 287


def main(path: Path) -> None:
    """Write them to a file, two in a row."""
    charts = {
        re.search(r'aria-label="([^"]+)"', chart)[1]: chart
        for chart in re.findall(r"<svg.*?</svg>", PAGE.read_text(), re.DOTALL)
    }
    places = [f'<svg x="{WIDTH * (n % 2)}" y="{HEIGHT * (n // 2)}" width="{WIDTH}" height="{HEIGHT}"' for n in range(4)]
    placed = [charts[name].replace("<svg", place, 1) for name, place in zip(CHARTS, places, strict=True)]
    box = f'viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}"'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n{"".join(placed)}\n</svg>\n')


if __name__ == "__main__":
    main(Path(__file__).parent / "report.svg")
