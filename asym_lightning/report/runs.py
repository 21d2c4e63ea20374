"""Run directories, as `fit` leaves them, read for a report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asym_lightning.core.kinds import Count, NumberOrZero, check_fields
from asym_lightning.core.messages import listed, shown
from asym_lightning.core.run_files import CONFIG, OUTCOME, RECORD, read_config, read_facts

_RECORD_FIELDS: Mapping[str, Any] = {
    "checkpoint": str | None,
    "metrics": Mapping[str, Any],  # NaN too, of a run that diverged
    "monitor": str | None,
    "mode": Literal["min", "max"] | None,
    "trained": NumberOrZero,
    "ranks": Mapping[str, Count],
    "seconds": float,
    "saved_bytes": int | None,
    "peak_bytes": int | None,
}
EVALUATION_OPTIONS = {"verbose", "return_predictions"}  # in configs of test, validate and predict, not in those of fit
_OUTCOME_FIELDS: Mapping[str, Any] = {"task": str, "arm": str, "learning_rate": float, "seed": int}


@dataclass(frozen=True)
class Run:
    """One finished run, by one of its test scores.

    Args:
        directory: Where it is.
        task: What it was trained for.
        arm: How it was trained.
        learning_rate: Learning rate.
        seed: Seed that the run goes by.
        metric: Name of the validation score without its stage, such as "accuracy".
        test_metric: Name of the test score; another where there are several test sets, such as "ood_accuracy".
        mode: "max" if more of the validation score is better, else "min".
        test_mode: The same of the test score.
        validation: The score on validation data at the chosen checkpoint.
        test: The score on test data.
        record: What `RunRecord` wrote.
        settings: The resolved config, flat, without seeds, rate and paths: equal for runs that may be averaged.
    """

    directory: Path
    task: str
    arm: str
    learning_rate: float
    seed: int
    metric: str
    test_metric: str
    mode: str
    test_mode: str
    validation: float
    test: float
    record: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def column(self) -> tuple[str, str]:
        """Task and test score: what is comparable."""
        return self.task, self.test_metric


@dataclass(frozen=True)
class RunsFound:
    """What was found in some directories.

    Args:
        runs: Finished runs.
        notes: What was left out and why, in sentences.
    """

    runs: Sequence[Run]
    notes: Sequence[str]


def read_runs(paths: Iterable[Path | str], metrics: Sequence[str] = ()) -> RunsFound:
    """Read all runs in and below some directories; what cannot be used is noted and never a reason to stop.

    Folders of `validate` and `predict` trained nothing and are no runs; what `test` made of a fit's best checkpoint
    counts where the fit was not tested itself.

    Args:
        paths: Run directories, or directories that hold some.
        metrics: Test scores to read, each as a run of its own; none takes the one that goes by the name of the
            validation score, or those whose names end with it, as `ood_accuracy` ends with accuracy.

    Raises:
        FileNotFoundError: If a path is no directory.
    """
    runs: list[Run] = []
    notes: list[str] = []
    seen: dict[tuple[object, ...], Path] = {}
    arms_tried: list[str] = []
    directories = list(_run_directories(map(Path, paths)))
    tests = _tests_by_checkpoint(directories)
    for directory in directories:
        if not _has_trained(directory):
            continue
        of_directory = _read_run(directory, metrics, tests)
        if isinstance(of_directory, str):
            notes.append(of_directory)
            arms_tried += [arm] if (arm := read_facts(directory, OUTCOME).get("arm")) else []
            continue
        run = of_directory[0]
        key = (*run.column, run.arm, run.learning_rate, run.seed)
        if key in seen:
            notes.append(f"`{directory}` repeats seed {run.seed} of `{seen[key]}` and is left out.")
            continue
        seen[key] = directory
        runs += of_directory
    finished = {run.arm for run in runs}
    notes += [f"arm {arm} has no finished run to report." for arm in dict.fromkeys(arms_tried) if arm not in finished]
    runs, mixed = _without_mixed_settings(runs)
    return RunsFound(runs, [*notes, *mixed])


def _run_directories(paths: Iterable[Path]) -> Iterator[Path]:
    found: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no directory {str(path)!r} with runs.")
        for name in (CONFIG, OUTCOME):
            found |= {file.parent for file in path.rglob(name)}
    # By path with numbers as numbers, so that seed_10 follows seed_9.
    yield from sorted(found, key=lambda path: [_natural(part) for part in path.parts])


def _natural(part: str) -> tuple[str, float]:
    stem, _, number = part.rpartition("_")
    try:
        return stem, float(number)
    except ValueError:
        return part, 0.0


def _has_trained(directory: Path) -> bool:
    """Whether a directory is that of a fit, finished or not, and of no other command."""
    if (directory / RECORD).is_file() or (directory / OUTCOME).is_file() or not (directory / CONFIG).is_file():
        return read_facts(directory, RECORD).get("command", "fit") == "fit"
    try:
        return not EVALUATION_OPTIONS & read_config(directory).keys()
    except ValueError:  # a damaged one is noted where runs are read
        return True


def _tests_by_checkpoint(directories: Iterable[Path]) -> dict[Path, Mapping[str, Any]]:
    """The metrics of tests without a fit, by the checkpoint that they tested; those of the last one of several."""
    tests: dict[Path, Mapping[str, Any]] = {}
    for directory in directories:
        record = read_facts(directory, RECORD)
        checkpoint, metrics = record.get("checkpoint"), record.get("metrics")
        if record.get("command") == "test" and isinstance(checkpoint, str) and isinstance(metrics, Mapping):
            tests[Path(checkpoint).resolve()] = metrics
    return tests


def _read_run(directory: Path, metrics: Sequence[str], tests: Mapping[Path, Mapping[str, Any]]) -> list[Run] | str:
    """Return the run in a directory, once for each test score, or why there is none."""
    outcome = read_facts(directory, OUTCOME)
    if outcome.get("status") == "failed":
        return f"`{directory}` failed and is left out: {outcome.get('error')}"
    record = read_facts(directory, RECORD)
    if not record or not (directory / CONFIG).is_file():
        return f"`{directory}` is incomplete and is left out: it lacks {RECORD if not record else CONFIG}."
    try:
        config = read_config(directory)
        check_fields(RECORD, record, _RECORD_FIELDS, ("metrics", "trained"))
        check_fields(OUTCOME, outcome, _OUTCOME_FIELDS)
    except (TypeError, ValueError) as error:
        return f"`{directory}` is damaged and is left out: {error}"
    found = record["metrics"]
    if record.get("checkpoint") and not any(name.startswith("test/") for name in found):
        found = {**found, **tests.get(Path(record["checkpoint"]).resolve(), {})}
    monitor = record.get("monitor") or _first_metric(found, "val/")
    if not monitor:
        return f"`{directory}` logged no validation metric and is left out."
    metric, mode = monitor.partition("/")[2], record.get("mode")
    validation = record.get("validation")
    if validation is None:
        validation = found.get(monitor)
    if validation is None:
        return f"`{directory}` has no {monitor} and is left out: it was never validated."
    chosen = metrics or _test_metrics(found, metric)
    missing = [name for name in chosen if f"test/{name}" not in found]
    if missing:
        tested = ", ".join(name.removeprefix("test/") for name in sorted(found) if name.startswith("test/"))
        hint = f"it has {tested}." if tested else "fit with `--test_after_fit=true`, or `test` its best checkpoint."
        return f"`{directory}` has no test/{missing[0]} and is left out; {hint}"
    for name, value in ((monitor, validation), *((f"test/{name}", found[f"test/{name}"]) for name in chosen)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"`{directory}` is damaged and is left out: {name} is {shown(value)} in {RECORD}."
        if not math.isfinite(value):
            return f"`{directory}` diverged ({name} is {value}) and is left out."
    mode = mode or _mode(metric)
    return [
        Run(
            directory=directory,
            task=outcome.get("task") or _task_name(config),
            arm=outcome.get("arm") or _arm_name(config),
            learning_rate=outcome.get("learning_rate") or _optimizer(config).get("lr", math.nan),
            seed=outcome.get("seed", config.get("seed_everything", 0)),
            metric=metric,
            test_metric=name,
            mode=mode,
            test_mode=mode if name.endswith(metric) else _mode(name),
            validation=validation,
            test=found[f"test/{name}"],
            record=record,
            settings=_settings(config),
        )
        for name in chosen
    ]


def _test_metrics(metrics: Mapping[str, float], metric: str) -> list[str]:
    """Return the test scores that go with a validation score."""
    if f"test/{metric}" in metrics:
        return [metric]
    names = [name.removeprefix("test/") for name in metrics if name.startswith("test/")]
    return [name for name in names if "/" not in name and name.endswith(f"_{metric}")] or [metric]


def _mode(metric: str) -> str:
    return "min" if metric.endswith(("loss", "gap", "error", "perplexity")) else "max"


def _without_mixed_settings(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Leave out, of each arm on each task, the runs whose settings differ from those of most."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((*run.column, run.arm), []).append(run)
    kept: list[Run] = []
    notes: list[str] = []
    for (task, _, arm), members in groups.items():
        variants: dict[str, list[Run]] = {}
        for run in members:
            variants.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
        most = max(variants.values(), key=len)
        kept += most
        for variant in variants.values():
            if variant is not most:
                differing = _differences(most[0].settings, variant[0].settings)
                which = f"`{variant[0].directory}`" + (f" and {len(variant) - 1} more" if len(variant) > 1 else "")
                notes.append(f"{which} of arm {arm} on {task} has other settings and is left out: {differing}.")
    return kept, notes


def _differences(common: Mapping[str, Any], other: Mapping[str, Any], limit: int = 3) -> str:
    keys = sorted(key for key in common.keys() | other.keys() if common.get(key) != other.get(key))
    return listed([f"{key} {other.get(key)} instead of {common.get(key)}" for key in keys], limit, separator="; ")


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(_flat(config, ""))
    ends = ("seed", "seed_everything", "init_args.lr", "save_dir", "dirpath", "default_root_dir", "ckpt_path")
    return {
        key: value
        for key, value in flat.items()
        if not key.endswith(ends) and not key.startswith(("trainer.logger", "trainer.callbacks", "trainer.enable_"))
    }


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _task_name(config: Mapping[str, Any]) -> str:
    data = config.get("data") or {}
    name = str(data.get("class_path", "unknown task")).rpartition(".")[2].removesuffix("DataModule")
    arguments = data.get("init_args") or {}
    detail = arguments.get("task") or arguments.get("dataset")
    return str(detail or name)


def _arm_name(config: Mapping[str, Any]) -> str:
    arguments = (config.get("model") or {}).get("init_args") or {}
    adapter = arguments.get("adapter")
    if adapter:
        return f"{adapter['scheme']}_r{adapter['rank']}"
    return "full" if arguments.get("train_backbone") else "head_only"


def _optimizer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = (config.get("model") or {}).get("init_args") or {}
    return (arguments.get("optimizer") or {}).get("init_args") or {}


def _first_metric(metrics: Mapping[str, float], prefix: str) -> str | None:
    names = [name for name in metrics if name.startswith(prefix)]
    return next((name for name in names if not name.endswith("loss")), names[0] if names else None)
