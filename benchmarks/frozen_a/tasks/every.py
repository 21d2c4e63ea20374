"""All tasks whose data are there."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.frozen_a.tasks.digits import Digits
from benchmarks.frozen_a.tasks.instructions import Instructions
from benchmarks.frozen_a.tasks.pacs import PACS
from benchmarks.frozen_a.tasks.sentences import Acceptability, WordOrder
from benchmarks.frozen_a.tasks.task import Task


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that name folders of data."""
    parser.add_argument("--pacs", type=Path, help="folder of PACS")
    parser.add_argument("--glue", type=Path, help="folder with GLUE's files of CoLA, for two tasks of sentences")


def every_task(options: argparse.Namespace) -> list[Task]:
    """Those that need no folder, and those whose folder is given."""
    tasks: list[Task] = [Digits(180), Digits(90), Instructions()]
    tasks += [PACS(options.pacs)] if options.pacs else []
    tasks += [WordOrder(options.glue), Acceptability(options.glue)] if options.glue else []
    return tasks
