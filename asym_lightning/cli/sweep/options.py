"""The options of `asym-lightning sweep`, and the file that may hold them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asym_lightning.cli.sweep.plan import SEEDS, Arm, Sweep, scheme_arms
from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.kinds import Count, check_fields, check_names, check_value
from asym_lightning.core.yaml_file import read_mapping

DESCRIPTION = """Run arms x learning rates x seeds, each as an ordinary fit in a directory of its own, and report them.
Each arm's learning rate is chosen on validation data; test scores are reported for the chosen rate alone.
The same command continues a sweep that was interrupted. Options after -- go to every fit."""

EXAMPLES = """examples:
  asym-lightning sweep --sweep benchmarks/sweeps/digits.yaml --jobs 2
  asym-lightning sweep --config configs/quickstart.yaml --arm configs/adapters/b_only_r8.yaml \\
      --arm configs/adapters/lora_r8.yaml --learning-rates 3e-3 1e-2 --seeds 0 1 2 --out runs/small
  asym-lightning sweep --config configs/quickstart.yaml --schemes hB_zero_A_rand hB_zero_hA_he --ranks 4 8 \\
      --learning-rates 1e-2 --seeds 0 1 --out runs/ranks -- --trainer.max_epochs=10"""

FILE_KEYS = ("out", "tasks", "arms", "schemes", "ranks", "learning_rates", "seeds", "vary", "data_seed_key", "options")
ARM_KEYS = ("configs", "options", "learning_rates")
Names = str | list[str] | None
Rates = list[float | str]  # YAML takes 1e-2 for a text
_KINDS_OF_ARM: Mapping[str, Any] = {"configs": Names, "options": Mapping[str, Any], "learning_rates": Rates | None}
_KINDS_OF_FILE: Mapping[str, Any] = {
    "out": str,
    "tasks": Mapping[str, Names],
    "arms": Mapping[str, Names | Mapping[str, Any]],
    "schemes": list[str],
    "ranks": list[Count],
    "learning_rates": Rates,
    "seeds": list[int],
    "vary": list[str],
    "data_seed_key": str | None,
    "options": list[str],
}


def sweep_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = ToolParser(
        "sweep", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", metavar="FILE", help="YAML file with any of the options below; options win")
    parser.add_argument("--config", action="append", default=[], help="config of the task; several are overlaid")
    parser.add_argument("--task", help="name of the task; default: that of its first config")
    parser.add_argument("--arm", action="append", default=[], metavar="CONFIG", help="overlay, an arm of that name")
    parser.add_argument("--schemes", nargs="+", default=[], help="arms: each scheme at each of --ranks")
    parser.add_argument("--ranks", nargs="+", type=int, default=[], help="ranks for --schemes")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[], help="rates that each arm is tried at")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="seeds of each arm and rate")
    parser.add_argument("--vary", nargs="+", choices=SEEDS, help="seeds that follow the run's seed (default: all)")
    parser.add_argument("--data-seed-key", help="key of the data module's own seed of the order, if it has one")
    parser.add_argument("--out", help="directory of the runs and the report")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument(
        "--together",
        type=int,
        default=1,
        metavar="N",
        help="train N runs in one process, over one backbone, if they differ in seed, rate, data or task (default: 1)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--slurm", action="store_true", help="write a Slurm array script and run nothing")
    parser.add_argument("--only", type=int, metavar="N", help="make only the run with this number, as the array does")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def sweep_of(options: argparse.Namespace, further: Sequence[str] = ()) -> Sweep:
    """Return what the options and the file ask for.

    Args:
        options: Parsed options.
        further: Options for every fit.

    Raises:
        FileNotFoundError: If there is no such sweep file.
        ValueError: If something is missing or unknown.
    """
    file = _read_file(options.sweep) if options.sweep is not None else {}
    tasks = {name: _names(configs) for name, configs in file.get("tasks", {}).items()}
    if options.config:
        tasks = {options.task or Path(options.config[0]).stem: options.config}
    arms = {name: _arm(name, value) for name, value in file.get("arms", {}).items()}
    schemes, ranks = options.schemes or file.get("schemes", []), options.ranks or file.get("ranks", [])
    if bool(schemes) != bool(ranks):
        raise ValueError("`--schemes` and `--ranks` go together: each scheme is run at each rank.")
    if schemes:
        from asym_lightning.adapters.scheme import Scheme  # torch, which other sweeps do without

        for scheme in schemes:
            Scheme.parse(scheme)
        for rank in ranks:
            check_value("--ranks", rank, Count)
    arms |= dict(scheme_arms(schemes, ranks))
    if options.arm:
        arms = {Path(path).stem: Arm(configs=(path,)) for path in options.arm}
    out = options.out or file.get("out")
    if not out:
        raise ValueError("the sweep needs a directory for its runs: `--out runs/NAME`.")
    return Sweep(
        directory=Path(out),
        tasks=tasks,
        arms=arms,
        learning_rates=options.learning_rates or _rates(file.get("learning_rates", [])),
        seeds=options.seeds or file.get("seeds", []),
        vary=options.vary or file.get("vary", SEEDS),
        data_seed_key=options.data_seed_key or file.get("data_seed_key"),
        options=(*file.get("options", ()), *further),
    )


def _read_file(path: str) -> Mapping[str, Any]:
    where = f"the sweep file {path!r}"
    if not path or not Path(path).exists():
        raise FileNotFoundError(f"there is no sweep file {path!r}.")
    content = read_mapping(path, "the keys and values of a sweep, such as `tasks:`")
    if not content:
        raise ValueError(f"{where} is empty: it should hold the keys and values of a sweep, such as `tasks:`.")
    check_names(where, content, FILE_KEYS)
    check_fields(where, content, _KINDS_OF_FILE)
    return content


def _arm(name: str, value: Any) -> Arm:
    if value is None or isinstance(value, (str, list)):
        return Arm(configs=tuple(_names(value)))
    check_names(f"arm {name!r}", value, ARM_KEYS)
    check_fields(f"arm {name!r}", value, _KINDS_OF_ARM, prefix=f"arms.{name}.")
    rates = value.get("learning_rates")
    rates = rates and tuple(_rates(rates, f"arms.{name}."))
    return Arm(tuple(_names(value.get("configs"))), value.get("options", {}), rates)


def _rates(given: Sequence[float | str], prefix: str = "") -> list[float]:
    rates = []
    for number, rate in enumerate(given):
        try:
            rates.append(float(rate))
        except ValueError:
            check_value(f"{prefix}learning_rates[{number}]", rate, float)
    return rates


def _names(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)
