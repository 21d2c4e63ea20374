"""Find adapters in directories, with the task, arm and seed that they were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asym_lightning.adapters.files.directory import is_adapter, read_adapter
from asym_lightning.adapters.files.factors import factors_by_slice
from asym_lightning.core.run_files import ADAPTER
from asym_lightning.report.adapter_similarity import TrainedAdapter
from asym_lightning.report.runs import read_runs
from asym_lightning.report.style import ReportStyle
from asym_lightning.report.table import results_table

UNKNOWN_TASK = "unnamed task"


def find_adapters(
    places: Sequence[str], arm: str | None = None, style: ReportStyle = ReportStyle()
) -> tuple[list[TrainedAdapter], list[str]]:
    """Return the adapters in some places, and notes on what was left out.

    Of a sweep, each arm's runs at its chosen learning rate are taken.

    Args:
        places: `DIR` or `TASK=DIR`; a directory is an adapter's, a run's, or one that holds runs.
        arm: Only runs of this arm.
        style: Names and order of arms.

    Raises:
        FileNotFoundError: If there is no such directory, or no adapter in it.
        ValueError: If an adapter is damaged.
    """
    adapters: list[TrainedAdapter] = []
    notes: list[str] = []
    for place in places:
        task, _, path = place.rpartition("=")
        directory = Path(path)
        if not directory.is_dir():
            raise FileNotFoundError(f"there is no directory {path!r}.")
        if is_adapter(directory):
            adapters.append(_adapter(directory, task or UNKNOWN_TASK))
        else:
            of_runs, of_notes = _of_runs(directory, task)
            adapters += of_runs
            notes += of_notes
    if arm is not None:
        known = ", ".join(dict.fromkeys(adapter.arm for adapter in adapters))
        adapters = [adapter for adapter in adapters if adapter.arm == arm]
        if not adapters:
            raise ValueError(f"there is no adapter of arm {arm!r}; those found are of {known or 'none'}.")
    order = style.in_order(adapter.arm for adapter in adapters)
    adapters.sort(key=lambda adapter: order.index(adapter.arm))
    return [replace(adapter, arm=style.name(adapter.arm)) for adapter in adapters], notes


def _of_runs(directory: Path, task: str) -> tuple[list[TrainedAdapter], list[str]]:
    found = read_runs([directory])
    table = results_table(found.runs, found.notes)
    adapters = []
    seen: set[Path] = set()  # runs with several test scores are in several columns
    for (arm, (of_task, _)), cell in table.cells.items():
        for run in cell.runs:
            if (run.directory / ADAPTER).is_dir() and run.directory not in seen:
                seen.add(run.directory)
                adapters.append(_adapter(run.directory, task or of_task, arm))
    if not adapters:
        raise FileNotFoundError(f"none of the runs in `{directory}` saved an adapter.")
    return adapters, list(found.notes)


def _adapter(directory: Path, task: str, arm: str | None = None) -> TrainedAdapter:
    """The adapter of a directory or a run; an arm without a name is called by how it was configured."""
    saved = read_adapter(directory)
    config = saved.config
    if arm is None:
        arm = f"{config['scheme']}_r{config['rank']}" if config else "adapters of peft"
    return TrainedAdapter(str(directory), task, arm, (config or {}).get("seed"), factors_by_slice(saved))
