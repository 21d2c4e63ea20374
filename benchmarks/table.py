"""The results as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Ratio, Row, group_rows, ratio_to

HEADER = (
    "arm",
    "step, ms",
    "x floor",
    "quartiles",
    "fastest",
    "x peft LoRA",
    "saved, MB",
    "x floor",
    "peak, MB",
    "kernels",
    "over floor, a layer",
    "trained",
    "optimizer, kB",
    "file, kB",
    "without A, kB",
    "inject, ms",
    "first step, s",
)


def peer_of(row: Row) -> str:
    """The arm that `peft` users run instead: its LoRA, with dropout where this arm has it."""
    return "peft-lora-dropout" if row.dropout else "peft-lora"


def markdown(rows: Sequence[Row]) -> str:
    """All cells one after another, each with its arms, then what was skipped and why."""
    machines = list(dict.fromkeys(row.machine for row in rows))
    parts = [f"Measured on: {machine}." for machine in machines]
    for arms in group_rows(rows):
        first = next(iter(arms.values()))
        parts.append(f"**{first.cell}** ({first.device}, {first.precision}, {first.threads} threads)")
        ran = [row for row in arms.values() if row.step_seconds]
        if ran:
            lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *(_line(row, arms) for row in ran)]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        skipped = [f"- skipped {row.arm}: {row.skipped}" for row in arms.values() if row.skipped]
        if skipped:
            parts.append("\n".join(skipped))
    return "\n\n".join(parts) + "\n"


def write_markdown(rows: Sequence[Row], path: Path) -> None:
    """Write the table beside the csv."""
    path.write_text(markdown(rows))


def _line(row: Row, arms: dict[str, Row]) -> tuple[str, ...]:
    floor, peer = ratio_to(row, arms), ratio_to(row, arms, peer_of(row))
    floor_saved = arms["floor"].saved_bytes if "floor" in arms else None
    saved_ratio = row.saved_bytes / floor_saved if row.saved_bytes and floor_saved else None
    return (
        row.arm,
        _number(1000 * statistics.median(row.step_seconds), "{:.1f}"),
        _number(floor.median if floor else None, "{:.3f}"),
        _quartiles(floor),
        _number(floor.fastest if floor else None, "{:.3f}"),
        _number(peer.median if peer else None, "{:.3f}"),
        _number(row.saved_bytes, "{:.1f}", 1e6),
        _number(saved_ratio, "{:.3f}"),
        _number(row.peak_bytes, "{:.1f}", 1e6),
        _number(row.kernels, "{:,}"),
        _number(_kernels_per_layer(row, arms), "{:.1f}"),
        _number(row.trainable, "{:,}"),
        _number(row.optimizer_bytes, "{:.0f}", 1e3),
        _number(row.file_bytes, "{:.0f}", 1e3),
        _number(row.compact_bytes, "{:.0f}", 1e3),
        _number(row.inject_seconds, "{:.0f}", 1e-3),
        _number(row.first_step_seconds, "{:.2f}"),
    )


def _kernels_per_layer(row: Row, arms: dict[str, Row]) -> float | None:
    floor = arms.get("floor")
    if floor is None or row.kernels is None or floor.kernels is None or not row.layers:
        return None
    return (row.kernels - floor.kernels) / row.layers


def _quartiles(ratio: Ratio | None) -> str:
    return f"{ratio.low:.3f}-{ratio.high:.3f}" if ratio else ""


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else form.format(value / unit if unit != 1 else value)
