"""An estimate as a table for the terminal, and sizes as people write and read them."""

from __future__ import annotations

import re

from rich.console import Group
from rich.table import Table
from rich.text import Text

from asym_lightning.estimate.estimate import Estimate

_UNITS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def estimate_table(estimate: Estimate, title: str, memory: int | None = None) -> Group:
    """Lay out an estimate; what is exact and what is not is said beside each number.

    Args:
        estimate: What to show.
        title: What it is of.
        memory: Bytes that a device has, to say whether the peak fits; None says nothing.
    """
    share = estimate.trained / estimate.parameters
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    for style in ("", "bold", "dim"):
        table.add_column(style=style, justify="right" if style == "bold" else "left")
    table.add_row("parameters", f"{estimate.parameters:,}", "exact")
    table.add_row("trained", f"{estimate.trained:,}", f"exact, {share:.3%}")
    table.add_section()
    rows = [
        ("weights", estimate.weights, "exact"),
        ("gradients", estimate.gradients, "exact"),
        ("optimizer state", estimate.optimizer_state, "exact"),
        ("gradient buckets", estimate.buckets, "exact"),
        ("batch", estimate.batch, "exact"),
        ("gathered at a time", estimate.gathered, "estimate"),
        ("activations", estimate.activations, "estimate"),
        ("peak", estimate.peak, "estimate" + ("" if memory is None else _fit(estimate.peak, memory))),
    ]
    for name, size, kind in rows:
        if size or name not in ("gradient buckets", "gathered at a time"):
            table.add_row(f"{name}, a device", size_text(size), kind)
    certainty = "estimate" if estimate.strategy == "fsdp" else "exact"
    for kind, size in estimate.communication.items():
        table.add_row(f"{kind}, a step", size_text(size), f"{certainty}, whole tensors")
    for name, size in estimate.files.items():
        table.add_row(name, size_text(size), "about" if name == "checkpoint" else "exact to some bytes")
    return Group(table, Text("Beside the peak a GPU holds its context, some 0.5 GB, and fragments.", style="dim"))


def size_text(num_bytes: int) -> str:
    """Write a number of bytes with three digits.

    >>> size_text(999), size_text(14_000_000_000), size_text(1_234_567)
    ('999 B', '14.0 GB', '1.23 MB')
    """
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{num_bytes} B" if unit == "B" else f"{size:#.3g} {unit}".replace(". ", " ")


def size_from_text(text: str) -> int:
    """Read a size such as `80GB` or `40 GiB`.

    >>> size_from_text("80GB"), size_from_text("1.5 GiB")
    (80000000000, 1610612736)

    Raises:
        ValueError: It is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"`memory` must be a size such as 80GB or 40GiB, not {text!r}.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _fit(peak: int, memory: int) -> str:
    if peak <= memory:
        return f", fits into {size_text(memory)}"
    return f", does not fit into {size_text(memory)}"
