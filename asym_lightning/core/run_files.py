"""The files of a run's directory: their names, and how they are read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asym_lightning.core.files import read_json
from asym_lightning.core.kinds import check_fields

CONFIG = "config.yaml"  # every option, resolved
RECORD = "record.json"  # of RunRecord: scores, counts, time, memory
METRICS = "metrics.csv"  # of CSVLogger
NORMS = "b_norms.csv"  # of BNormMonitor
OUTCOME = "run.json"  # how a sweep's run ended, once it has
LOG = "log.txt"  # what a sweep's run printed
SHARDED_METADATA = "meta.pt"  # in a sharded checkpoint's folder; Lightning's name
ADAPTER = "adapter"  # that of the best checkpoint
ADAPTER_CONFIG = "adapter_config.json"  # in that directory, and in any other adapter's; peft's name
RUNS = "runs"  # where runs go if nothing else is said
_CONFIG_FIELDS: Mapping[str, Any] = {
    "model": Mapping[str, Any],
    "data": Mapping[str, Any] | None,
    "trainer": Mapping[str, Any],
}
_MODEL_FIELDS: Mapping[str, Any] = {"class_path": str, "init_args": Mapping[str, Any] | None}


def is_run(directory: str | Path) -> bool:
    """Whether a directory is a run's."""
    return Path(directory, CONFIG).is_file()


def read_config(directory: str | Path) -> dict[str, Any]:
    """Read the resolved config.

    Raises:
        FileNotFoundError: There is none, so the directory is no run's.
        ValueError: It is damaged.
    """
    path = Path(directory, CONFIG)
    if not path.is_file():
        raise FileNotFoundError(f"{str(directory)!r} is no run directory: it has no {CONFIG}.")
    # YAML, which adapters, that read files of runs as well, can do without.
    from asym_lightning.core.yaml_file import read_mapping

    config = read_mapping(path, "the options of a run, such as `model:`")
    try:
        if not config:
            raise ValueError("it is empty.")
        check_fields("it", config, _CONFIG_FIELDS)
        if "model" in config:
            check_fields("its `model`", config["model"], _MODEL_FIELDS, ("class_path",), prefix="model.")
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{path}` is not the config of a run: {error}") from error
    return config


def read_facts(directory: str | Path, name: str) -> dict[str, Any]:
    """Read `record.json` or `run.json`; empty where there is none, as in a run that was killed, or it is damaged."""
    try:
        facts = read_json(Path(directory, name))
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def read_curve(directory: str | Path, metric: str) -> list[tuple[float, float]]:
    """Read (step, value) of one metric from `metrics.csv`; empty if it was not logged."""
    path = Path(directory, METRICS)
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [(float(row["step"]), float(row[metric])) for row in csv.DictReader(file) if row.get(metric)]


def find_checkpoints(directory: str | Path) -> list[Path]:
    """The checkpoints in and below a directory, by path."""
    return sorted(Path(directory).glob("**/*.ckpt"))
