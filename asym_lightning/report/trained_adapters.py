"""Find adapters in directories, with the task, arm and seed that they were trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from asym_lightning.adapters.files.directory import read_factors
from asym_lightning.adapters.files.save import CONFIG_FILE, METADATA_KEY, TENSOR_FILE
from asym_lightning.analysis.adapter_similarity import TrainedAdapter
from asym_lightning.report.runs import read_runs
from asym_lightning.report.table import results_table

UNKNOWN_TASK = "unnamed task"


def find_adapters(places: Sequence[str], arm: str | None = None) -> tuple[list[TrainedAdapter], list[str]]:
    """Return the adapters in some places, and notes on what was left out.

    Of a sweep, each arm's runs at its chosen learning rate are taken.

    Args:
        places: `DIR` or `TASK=DIR`; a directory is an adapter's, a run's, or one that holds runs.
        arm: Only runs of this arm.

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
        if (directory / TENSOR_FILE).is_file() or (directory / CONFIG_FILE).is_file():
            adapters.append(_bare(directory, task or UNKNOWN_TASK))
        else:
            of_runs, of_notes = _of_runs(directory, task)
            adapters += of_runs
            notes += of_notes
    if arm is not None:
        known = ", ".join(dict.fromkeys(adapter.arm for adapter in adapters))
        adapters = [adapter for adapter in adapters if adapter.arm == arm]
        if not adapters:
            raise ValueError(f"there is no adapter of arm {arm!r}; those found are of {known or 'none'}.")
    return adapters, notes


def _of_runs(directory: Path, task: str) -> tuple[list[TrainedAdapter], list[str]]:
    found = read_runs([directory])
    table = results_table(found.runs, found.notes)
    adapters = []
    seen: set[Path] = set()  # runs with several test scores are in several columns
    for (arm, (of_task, _)), cell in table.cells.items():
        for run in cell.runs:
            adapter = run.directory / "adapter"
            if adapter.is_dir() and adapter not in seen:
                seen.add(adapter)
                seed = _description(adapter).get("seed")
                adapters.append(TrainedAdapter(str(run.directory), task or of_task, arm, seed, read_factors(adapter)))
    if not adapters:
        raise FileNotFoundError(f"none of the runs in `{directory}` saved an adapter.")
    return adapters, list(found.notes)


def _bare(directory: Path, task: str) -> TrainedAdapter:
    factors = read_factors(directory)
    config = _description(directory)
    arm = f"{config['scheme']}_r{config['rank']}" if config else "adapters of peft"
    return TrainedAdapter(str(directory), task, arm, config.get("seed"), factors)


def _description(directory: Path) -> dict[str, Any]:
    """Return our configuration of an adapter; empty for an adapter of `peft`."""
    with safe_open(directory / TENSOR_FILE, framework="pt") as file:
        header = file.metadata() or {}
    metadata = header.get(METADATA_KEY)
    described = (
        json.loads(metadata) if metadata else json.loads((directory / CONFIG_FILE).read_text()).get(METADATA_KEY)
    )
    return described["config"] if described else {}
