"""Options that commands have in common: those on finished runs, and those that take a config as `fit` does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from asym_lightning.cli.usage import ToolParser


def run_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of a run directory, where to write, and whether to upload."""
    parser = ToolParser(command, description=description)
    parser.add_argument("run", metavar="RUN", help="run directory of a fit, such as runs/images/version_0")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write, which must not exist yet")
    parser.add_argument("--checkpoint", metavar="CKPT", help="checkpoint to use; default: the best of the run")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="also upload the folder to this repository")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def config_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of configs, for a command that takes further options of `fit` as well."""
    parser = ToolParser(command, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[], help="config of a run; several are overlaid")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_calibration_options(parser: argparse.ArgumentParser, num_batches: int) -> None:
    """Add how to look at training data; `num_batches` is what is looked at by default."""
    parser.add_argument(
        "--num-batches", type=int, default=num_batches, help=f"training batches to look at (default: {num_batches})"
    )
    parser.add_argument("--head-steps", type=int, default=0, help="steps to train heads before (default: 0)")
    parser.add_argument("--layers-at-a-time", type=int, help="layers in memory together; default: all")


def parsed_with_fit(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of a parser with `--config`, and what `fit` would be given: the configs and all others."""
    options, others = parser.parse_known_args(arguments)
    return options, [*(part for config in options.config for part in ("--config", config)), *others]


def parsed_with_config(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Do what :func:`parsed_with_fit` does, for a command that can't do without a config.

    Raises:
        ValueError: There is none.
    """
    options, of_fit = parsed_with_fit(parser, arguments)
    if not options.config:
        raise ValueError(f"`{parser.prog.split()[-1]}` needs `--config`, as fit does.")
    return options, of_fit
