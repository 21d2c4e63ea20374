"""What a sweep consists of: tasks x arms x learning rates x seeds, each one run of `fit`."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asym_lightning.cli.config_files import config_path, merged_config
from asym_lightning.core.kinds import Positive, Seed
from asym_lightning.core.messages import check_choice, shown
from asym_lightning.core.options import check_kinds

LEARNING_RATE_KEY = "model.init_args.optimizer.init_args.lr"
ADAPTER_SEED_KEY = "model.init_args.adapter.seed"
SEEDS = ("adapter", "head", "data")
FIXED_SEED = 0  # of what does not vary
_MAY_DIFFER = re.compile(rf"data(\..*)?|seed_everything|{re.escape(LEARNING_RATE_KEY)}|{re.escape(ADAPTER_SEED_KEY)}")
_OF_TASKS = re.compile(r"model\.(class_path|init_args\.(?!backbone|adapter|train_backbone).*)|trainer\.callbacks")
SAFE_NAME = re.compile(r"[\w+-][\w.+-]{,99}")  # of a directory in this one, which is not hidden


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Args:
        configs: Overlays on the task's configs.
        options: Further options of `fit`, by key.
        learning_rates: Its own rates to try; None means the sweep's.
    """

    configs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rates: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        check_kinds(self)


@dataclass(frozen=True)
class Sweep:
    """All runs of a comparison.

    Args:
        directory: Where the runs go, as `<task>/<arm>/lr_<rate>/seed_<n>`.
        tasks: Configs of each task, by its name.
        arms: The arms, by name.
        learning_rates: Rates that each arm is tried at.
        seeds: Seeds that each arm and rate is run with.
        vary: Which seeds follow the run's: of the "adapter" (A's draw), of the "head" (and of dropout before training),
            of the "data" (order of the training samples and dropout while training). The others stay at 0.
        data_seed_key: Key of the data module's own seed of the order, such as `data.init_args.seed` of the text
            modules; None where the order follows the run's random state, as it does with the digits.
        options: Options of `fit` for every run.
    """

    directory: Path
    tasks: Mapping[str, Sequence[str]]
    arms: Mapping[str, Arm]
    learning_rates: Sequence[Positive]
    seeds: Sequence[Seed]
    vary: Sequence[str] = SEEDS
    data_seed_key: str | None = None
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_kinds(self)
        for what, names, option in (("task", self.tasks, "--config"), ("arm", self.arms, "--arm")):
            if not names:
                raise ValueError(f"the sweep has no {what}s: name some by `{option}`.")
            for name in names:
                if not SAFE_NAME.fullmatch(name):
                    raise ValueError(
                        f"{what} {shown(name)} cannot name a directory: begin with a letter or digit, and use letters, "
                        "digits and the signs . _ + -"
                    )
        if not self.seeds:
            raise ValueError("the sweep has no seeds: name some, as in `--seeds 0 1 2`.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` names a seed twice: {', '.join(map(str, self.seeds))}.")
        for name, arm in self.arms.items():
            if not (arm.learning_rates or self.learning_rates):
                raise ValueError(
                    f"arm {name!r} has no learning rates to try: name some, as in `--learning-rates 1e-2`."
                )
        for name in self.vary:
            check_choice("vary", name, SEEDS)


@dataclass(frozen=True)
class Run:
    """One ordinary run of `fit` in a directory of its own.

    Args:
        task: Name of the task.
        arm: Name of the arm.
        learning_rate: Learning rate.
        seed: The run's seed, which those of `seeds` that vary follow.
        seeds: Seeds of adapter, head and data.
        directory: Where it goes.
        arguments: What follows the name of the program.
        fingerprint: Digest of all that decides the result: arguments and contents of the configs.
    """

    task: str
    arm: str
    learning_rate: float
    seed: int
    seeds: Mapping[str, int]
    directory: Path
    arguments: tuple[str, ...]
    fingerprint: str

    @property
    def name(self) -> str:
        """Task, arm, rate and seed as they follow one another in the path."""
        return "/".join(self.directory.parts[-4:])

    @property
    def command(self) -> str:
        """The command line that makes this run by itself."""
        return shlex.join(["lightning", *self.arguments])


def plan_runs(sweep: Sweep) -> list[Run]:
    """Return the runs of a sweep, seed by seed, so that every arm has a first result early.

    Raises:
        FileNotFoundError: If a config is missing.
    """
    return [
        _run(sweep, task, arm, rate, seed)
        for seed in sweep.seeds
        for task in sweep.tasks
        for arm in sweep.arms
        for rate in sweep.arms[arm].learning_rates or sweep.learning_rates
    ]


def check_go_together(sweep: Sweep) -> None:
    """Check that the runs of a sweep differ in seed, rate or data alone, and those of several tasks in the module too.

    Raises:
        ValueError: They differ in more; the message says in what.
    """
    settings = {
        (task, arm): dict(_flat(merged_config([str(config_path(config)) for config in (*configs, *chosen.configs)])))
        | {key: _text(value) for key, value in chosen.options.items()}
        for task, configs in sweep.tasks.items()
        for arm, chosen in sweep.arms.items()
    }
    (first, expected), *others = settings.items()
    for name, found in others:
        may_differ = (_MAY_DIFFER, *([_OF_TASKS] if name[0] != first[0] else []))
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key) and not any(known.fullmatch(key) for known in may_differ):
                raise ValueError(
                    f"`--together` takes runs that differ in seed, rate, data or task alone, and {'/'.join(first)} and "
                    f"{'/'.join(name)} differ in `{key}`: sweep them one after the other."
                )


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, _text(config)


def _run(sweep: Sweep, task: str, arm_name: str, rate: float, seed: int) -> Run:
    arm = sweep.arms[arm_name]
    configs = [str(config_path(config)) for config in (*sweep.tasks[task], *arm.configs)]
    seeds = {name: seed if name in sweep.vary else FIXED_SEED for name in SEEDS}
    options = [f"--{key}={_text(value)}" for key, value in arm.options.items()]
    options += [f"--{LEARNING_RATE_KEY}={rate:g}", f"--seed_everything={seeds['head']}"]
    has_adapter = _has_adapter(merged_config(configs), arm)
    if has_adapter:
        options.append(f"--{ADAPTER_SEED_KEY}={seeds['adapter']}")
    if sweep.data_seed_key:
        options.append(f"--{sweep.data_seed_key}={seeds['data']}")
    options += [
        "--trainer.callbacks+=asym_lightning.callbacks.OrderSeed",
        f"--trainer.callbacks.seed={seeds['data']}",
        *(["--trainer.callbacks+=asym_lightning.callbacks.BNormMonitor"] if has_adapter else []),
        "--trainer.enable_progress_bar=false",
        "--test_after_fit=true",
        *sweep.options,
    ]
    directory = sweep.directory / task / arm_name / f"lr_{rate:g}" / f"seed_{seed}"
    logger = [
        "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
        f"--trainer.logger.save_dir={directory}",
        "--trainer.logger.name=",
        "--trainer.logger.version=",
    ]
    of_configs = [part for config in configs for part in ("--config", config)]
    digest = hashlib.sha256(json.dumps([options, [Path(config).read_text() for config in configs]]).encode())
    return Run(
        task=task,
        arm=arm_name,
        learning_rate=rate,
        seed=seed,
        seeds=seeds,
        directory=directory,
        arguments=("fit", *of_configs, *options, *logger),
        fingerprint=digest.hexdigest()[:16],
    )


def _has_adapter(config: Mapping[str, Any], arm: Arm) -> bool:
    is_optioned = any(key.startswith("model.init_args.adapter.") for key in arm.options)
    return is_optioned or bool(config.get("model", {}).get("init_args", {}).get("adapter"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def scheme_arms(schemes: Sequence[str], ranks: Sequence[int]) -> Iterator[tuple[str, Arm]]:
    """Return an arm for each scheme and rank.

    >>> [name for name, _ in scheme_arms(["hB_zero_A_rand"], [4, 8])]
    ['hB_zero_A_rand_r4', 'hB_zero_A_rand_r8']
    """
    for scheme in schemes:
        for rank in ranks:
            yield (
                f"{scheme}_r{rank}",
                Arm(options={"model.init_args.adapter.scheme": scheme, "model.init_args.adapter.rank": rank}),
            )
