"""Draw `least_squares.svg`: which factor explains more of a target update, by how many directions the inputs fill."""

from pathlib import Path

import torch

from asym_lightning.analysis.least_squares import mean_least_squares_gap
from asym_lightning.report.chart import Axis, PointChart, Series
from asym_lightning.report.svg import svg

DIM, RANK = 64, 8
DIRECTIONS = (4, 8, 12, 16, 24, 32, 48, 64, 128, 1024)  # of samples of the inputs; many more than DIM are isotropic


def main() -> None:
    """Draw it beside this script."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(DIM, DIM, generator=generator)
    shares: dict[str, list[float]] = {"B trained": [], "A trained": []}
    for number in DIRECTIONS:
        root = torch.randn(DIM, number, generator=generator)
        result = mean_least_squares_gap(delta, root @ root.T / number, RANK)
        shares["B trained"].append(result.explained_by_B / result.total)
        shares["A trained"].append(result.explained_by_A / result.total)
    chart = PointChart(
        f"Explained at best, rank {RANK} of {DIM}",
        [Series(name, DIRECTIONS, values) for name, values in shares.items()],
        Axis("random directions that the inputs are made of", is_log=True),
        Axis("share of the target update", low=0, high=1.05),
        chance=RANK / DIM,
    )
    Path(__file__).with_name("least_squares.svg").write_text(svg(chart))


if __name__ == "__main__":
    main()
