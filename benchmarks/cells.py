"""What is compared: one :class:`Cell` is one model at one size, and all arms are run in it side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TARGETS = {
    "q": ("q",),
    "qv": ("q", "v"),
    "qkv": ("q", "k", "v"),
    "qkvo": ("q", "k", "v", "o"),
    "all-linear": ("all-linear",),
    "experts": ("experts",),
    "all-conv": ("all-conv",),
    "embedding": ("word_embeddings",),
}
# A graph is a compiled model whose kernels a GPU launches all at once; on a CPU it is the same as a compiled one.
MODES = {"eager": None, "compiled": "default", "graph": "reduce-overhead"}
PRECISIONS = ("32", "bf16-true", "bf16-mixed")


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        model: A name in :data:`benchmarks.models.SHAPES`.
        depth: Number of blocks.
        width: Hidden size; ``None`` is the model's own.
        batch: Examples a step.
        length: Tokens an example; for images the number of patches, a square; places along all axes of a convolution.
        targets: A key of :data:`TARGETS`.
        rank: Rank of every adapter.
        mode: A key of :data:`MODES`.
        processes: That train together by DDP, each on a batch of its own.
    """

    model: str
    depth: int
    width: int | None
    batch: int
    length: int
    targets: str
    rank: int
    mode: str
    processes: int = 1

    def __str__(self) -> str:
        width = f" width {self.width}" if self.width else ""
        processes = f", {self.processes} processes" if self.processes > 1 else ""
        return (
            f"{self.model} depth {self.depth}{width}, {self.batch} x {self.length}, {self.targets}, "
            f"rank {self.rank}, {self.mode}{processes}"
        )


_VIT = {"model": "vit-s", "depth": 4, "batch": 8, "length": 196}
_ROBERTA = {"model": "roberta-base", "depth": 6, "width": 384, "batch": 16, "length": 128}
_ON_GPU = [
    {"model": "llama-7b", "depth": 32, "batch": 4, "length": 512, "targets": "all-linear", "rank": 16},
    {"model": "vit-l", "depth": 24, "batch": 64, "length": 196, "targets": "all-linear", "rank": 16},
    {"model": "roberta-large", "depth": 24, "batch": 32, "length": 128, "targets": "all-linear", "rank": 16},
]
_RANKS = (1, 4, 8, 16, 32, 64, 128, 256)
# The middle of all axes along which cost grows: attention of transformers is torch's, which keeps no scores.
_GROWING = {
    "model": "roberta-base", "width": 256, "depth": 4, "batch": 4, "length": 128, "targets": "all-linear", "rank": 8
}  # fmt: skip

# Each entry is a grid: every combination of its values is a cell. The sizes are cut so that two cores take minutes.
SUITES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "quick": [_VIT, _ROBERTA],
    "compiled": [{**_VIT, "mode": "compiled"}, {**_ROBERTA, "mode": "compiled"}],
    "rank": [
        {**_VIT, "targets": "all-linear", "rank": _RANKS},
        {**_ROBERTA, "depth": 3, "targets": "all-linear", "rank": _RANKS},
        {**_ROBERTA, "depth": 2, "width": None, "targets": "all-linear", "rank": _RANKS},
    ],
    "depth": [
        {**_VIT, "targets": "all-linear", "depth": (2, 4, 8, 12)},
        {**_ROBERTA, "targets": "all-linear", "depth": (2, 4, 8, 12)},
    ],
    "length": [
        {**_VIT, "targets": "all-linear", "length": (64, 196, 400, 576)},
        {**_ROBERTA, "depth": 2, "targets": "all-linear", "length": (32, 128, 256, 512)},
    ],
    "models": [
        {"model": "vit-b", "depth": 3, "batch": 4, "length": 196},
        {"model": "roberta-base", "depth": 3, "batch": 16, "length": 128},
        {"model": "roberta-large", "depth": 2, "batch": 8, "length": 128},
        {"model": "llama-s", "depth": 4, "batch": 4, "length": 256},
    ],
    # The widths of ViT-B and RoBERTa-base, where products with W are nearly all of a step.
    "base": [
        {"model": "vit-b", "depth": 3, "batch": 8, "length": 196},
        {"model": "roberta-base", "depth": 3, "batch": 16, "length": 128},
    ],
    "kinds": [  # of adapted layers, each beside peft
        {"model": "mixtral-s", "depth": 2, "batch": 4, "length": 128, "targets": "experts"},
        {"model": "torch-encoder", "depth": 4, "batch": 8, "length": 128, "targets": "qkv"},
        {**_ROBERTA, "depth": 2, "targets": "embedding"},
        # Convolutions along two axes, in groups (peft takes no rank below their number), and along one and three axes.
        {"model": "resnet", "depth": 2, "batch": 8, "length": 49, "targets": "all-conv"},
        {"model": "resnext", "depth": 1, "batch": 4, "length": 49, "targets": "all-conv", "rank": 32},
        {"model": "conv1d", "depth": 4, "batch": 8, "length": 256, "targets": "all-conv"},
        {"model": "conv3d", "depth": 4, "batch": 4, "length": 512, "targets": "all-conv"},
    ],
    # So little work that calling functions is most of it.
    "dispatch": [{**_ROBERTA, "width": 128, "batch": 1, "length": 8}],
    "growth": [
        {**_GROWING, "rank": (1, 8, 64, 256)},
        {**_GROWING, "depth": (1, 2, 4, 8)},
        {**_GROWING, "depth": 2, "batch": 4, "width": (128, 256, 512, 1024)},
        {**_GROWING, "depth": 1, "width": 128, "batch": 1, "length": (128, 512, 2048, 8192)},
        {**_GROWING, "batch": (1, 2, 4, 8, 16)},
        {**_GROWING, "targets": ("q", "qv", "qkv", "qkvo", "all-linear")},
        {**_GROWING, "processes": (1, 2, 4)},
    ],
    # Whole models eager, and two blocks of them compiled: to compile all would take most of the time.
    "cuda": [{**shape, **how} for how in ({}, {"depth": 2, "mode": ("compiled", "graph")}) for shape in _ON_GPU],
}
_DEFAULTS = {"width": None, "targets": ("qkv", "all-linear"), "rank": 8, "mode": "eager"}


def cells_of(suite: str, overrides: Mapping[str, Sequence[Any] | None]) -> list[Cell]:
    """The cells of a suite, in which every given override replaces the suite's own values.

    >>> for cell in cells_of("models", {"rank": [4, 8], "model": ["vit-b"], "batch": [2], "depth": [1], "length": [4]}):
    ...     print(cell)
    vit-b depth 1, 2 x 4, qkv, rank 4, eager
    vit-b depth 1, 2 x 4, qkv, rank 8, eager
    vit-b depth 1, 2 x 4, all-linear, rank 4, eager
    vit-b depth 1, 2 x 4, all-linear, rank 8, eager
    """
    given = {name: values for name, values in overrides.items() if values is not None}
    cells = [cell for grid in SUITES[suite] for cell in _grid({**_DEFAULTS, **grid, **given})]
    return list(dict.fromkeys(cells))


def _grid(values: Mapping[str, Any]) -> Iterator[Cell]:
    axes = [value if isinstance(value, (tuple, list)) else (value,) for value in values.values()]
    for point in itertools.product(*axes):
        yield Cell(**dict(zip(values, point, strict=True)))
