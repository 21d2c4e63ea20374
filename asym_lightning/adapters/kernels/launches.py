"""How the Triton kernels are launched: by a table of what fits into registers, or as was measured on the card before.

Of the launches that fit, that of the highest arithmetic intensity is taken: operations for each byte that a program
moves. With more rows at once A is read less often, and with few tokens rows are of no use. :func:`tune` times them all
on a card and keeps the fastest in the user's cache folder, from where every later run takes them.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from asym_lightning.core.cache import user_cache_dir
from asym_lightning.core.files import atomic_file


class Shape(NamedTuple):
    """What a launch is chosen by; the width of the layer is none of it, for programs go along it.

    Attributes:
        kernel: `project` (to the rank) or `back`.
        size: Bytes of a number.
        ranks: Columns of h that a program holds: the rank, filled up to a power of two, 16 at least.
        tokens: Tokens, filled up to a power of two.
    """

    kernel: str
    size: int
    ranks: int
    tokens: int


class Launch(NamedTuple):
    """How many programs there are, and what each of them does.

    Attributes:
        rows: Tokens that a program works on.
        warps: Warps of 32 threads that share its work.
        programs: How many there are at least: with few tokens columns are divided to get there. 512 occupy every
            multiprocessor of a large GPU.
    """

    rows: int
    warps: int
    programs: int = 512


# Launches by bytes of a number and columns of h, for which ptxas (sm_80, sm_90, sm_100) spills nothing. They take at
# most 128 registers a thread, so that sixteen warps are at work on a multiprocessor; with 128 columns it is eight.
FITS: Mapping[tuple[int, int], tuple[Launch, ...]] = {
    (2, 16): (Launch(16, 4), Launch(32, 4), Launch(64, 8)),
    (2, 32): (Launch(16, 8), Launch(32, 8)),
    (2, 64): (Launch(16, 8), Launch(32, 8)),
    (2, 128): (Launch(16, 8), Launch(32, 8)),
    (4, 16): (Launch(16, 4), Launch(16, 8), Launch(32, 8)),
    (4, 32): (Launch(16, 8),),
}
PROGRAMS = (256, 512, 1024)
TOKENS = tuple(2**n for n in range(7, 15))
SHAPES = tuple(
    Shape(kernel, size, ranks, tokens) for kernel in ("project", "back") for size, ranks in FITS for tokens in TOKENS
)
"""What :func:`tune` is for: from 128 tokens to 16,384."""


def launch_for(kernel: str, num_tokens: int, rank: int, size: int, device: torch.device) -> Launch:
    """Return how a kernel is launched.

    >>> launch_for("project", 4096, 8, 2, torch.device("cpu"))
    Launch(rows=64, warps=8, programs=512)
    >>> launch_for("project", 20, 8, 2, torch.device("cpu"))
    Launch(rows=32, warps=4, programs=512)

    Args:
        kernel: `project` or `back`.
        num_tokens: Rows of the operand.
        rank: Of the adapter; :data:`FITS` has to know it, filled up to a power of two.
        size: Bytes of a number.
        device: Where it runs.
    """
    shape = Shape(kernel, size, rank_block(rank), _power_of_two(num_tokens))
    return kept(device).get(shape) or on_paper(shape)


def rank_block(rank: int) -> int:
    """Columns of h that a program holds; tensor cores take blocks of at least 16.

    >>> rank_block(4), rank_block(20)
    (16, 32)
    """
    return max(16, _power_of_two(rank))


@functools.cache
def on_paper(shape: Shape) -> Launch:
    """Return the launch of the highest arithmetic intensity; of equals that with the fewest rows and warps."""
    return min(FITS[shape.size, shape.ranks], key=lambda launch: (-intensity(shape, launch), launch.rows, launch.warps))


def intensity(shape: Shape, launch: Launch) -> float:
    """Operations for each byte that a program moves: a block of A, and its rows of the operand.

    >>> intensity(Shape("project", 2, 16, 4096), Launch(64, 8))
    12.8
    """
    rows = min(launch.rows, shape.tokens)
    return 2 * rows * shape.ranks / (shape.size * (rows + shape.ranks))


def tune(device: torch.device, shapes: Iterable[Shape], measure: Callable[[Shape, Launch], float]) -> Path:
    """Time every launch that fits, keep the fastest of each shape, and return the file that they are in.

    A launch changes the order of sums, and so the last bits of a result: tune before a run and not between its parts.

    Args:
        device: The card.
        shapes: Those to tune.
        measure: Returns the seconds that a launch takes.
    """
    fastest = dict(kept(device))
    for shape in shapes:
        tried = [*FITS[shape.size, shape.ranks]]
        if shape.kernel == "project":  # the other divides no columns
            tried = [launch._replace(programs=n) for launch in tried for n in PROGRAMS]
        fastest[shape] = min(tried, key=lambda launch: measure(shape, launch))
    file = file_of(device)
    entries = [shape._asdict() | launch._asdict() for shape, launch in fastest.items()]
    with atomic_file(file) as staging:
        staging.write_text(json.dumps({"triton": _triton_version(), "launches": entries}, indent=1) + "\n")
    kept.cache_clear()
    return file


@functools.cache
def kept(device: torch.device) -> Mapping[Shape, Launch]:
    """Return what was tuned on a card of this name by this version of Triton; warns of a file that is damaged."""
    if device.type != "cuda" or not (file := file_of(device)).exists():
        return {}
    try:
        content = json.loads(file.read_text())
        if content["triton"] != _triton_version():
            return {}
        return dict(_entry(**entry) for entry in content["launches"])
    except (ValueError, TypeError, KeyError) as error:
        warnings.warn(f"`{file}` is no file of launches ({error}): kernels are launched by the table.", stacklevel=2)
        return {}


def _entry(
    kernel: str, size: int, ranks: int, tokens: int, rows: int, warps: int, programs: int
) -> tuple[Shape, Launch]:
    launch = Launch(rows, warps, programs)
    if launch._replace(programs=512) not in FITS.get((size, ranks), ()):
        raise ValueError(f"{rows} rows by {warps} warps do not fit")
    return Shape(kernel, size, ranks, tokens), launch


def file_of(device: torch.device) -> Path:
    """Return the file of what was tuned on cards of a device's name."""
    name = torch.cuda.get_device_name(device).replace(" ", "_").replace("/", "_")
    return user_cache_dir() / "launches" / f"{name}.json"


def _triton_version() -> str:
    import triton

    version: str = triton.__version__
    return version


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
