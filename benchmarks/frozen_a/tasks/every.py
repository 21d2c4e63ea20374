"""All tasks whose data are there."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.frozen_a.tasks.digits import Digits
from benchmarks.frozen_a.tasks.instructions import Instructions
from benchmarks.frozen_a.tasks.pacs import PACS
from benchmarks.frozen_a.tasks.sentences import Acceptability, WordOrder
from benchmarks.frozen_a.tasks.swapped_words import SwappedWords
from benchmarks.frozen_a.tasks.task import Task
from benchmarks.frozen_a.tasks.word_order_pairs import WordOrderPairs


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that name folders of data."""
    parser.add_argument("--pacs", type=Path, help="folder of PACS")
    parser.add_argument("--glue", type=Path, help="folder with GLUE's files of CoLA, for tasks of sentences")


def every_task(options: argparse.Namespace) -> list[Task]:
    """Those that need no folder, and those whose folder is given."""
    tasks: list[Task] = [Digits(180), Digits(90), Instructions()]
    tasks += [PACS(options.pacs)] if options.pacs else []
    of_glue = (WordOrder, Acceptability, SwappedWords, WordOrderPairs)
    tasks += [task(options.glue) for task in of_glue] if options.glue else []
    return tasks
