"""A cell on one process, or on several that train together."""

from __future__ import annotations

import datetime
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing

from benchmarks.arms import Arm
from benchmarks.cells import Cell
from benchmarks.measure import Settings, measure_cell
from benchmarks.results import Row, read_csv, write_csv

TIMEOUT = datetime.timedelta(minutes=5)


def prepare_process() -> None:
    """Settings of torch and of what libraries say, for a process that measures and nothing else."""
    # Sixteen copies of one class are compiled: the default limit would send the last ones back to eager.
    torch._dynamo.config.recompile_limit = 64
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def measure(cell: Cell, arms: Sequence[Arm], settings: Settings) -> list[Row]:
    """Measure a cell; of several processes the first one's rows are returned, since all take the same steps.

    Raises:
        ValueError: Several processes are asked for on a GPU.
    """
    if cell.processes == 1:
        return measure_cell(cell, arms, settings)
    if settings.device.type != "cpu":
        raise ValueError("`--processes` is measured on a CPU only, over gloo: use `--device cpu`.")
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_work, (Path(folder), cell, arms, settings), nprocs=cell.processes)
        return read_csv(Path(folder, "rows.csv"))


def _work(rank: int, folder: Path, cell: Cell, arms: Sequence[Arm], settings: Settings) -> None:
    prepare_process()
    torch.set_num_threads(settings.threads)
    where = (folder / "store").as_uri()
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=cell.processes, timeout=TIMEOUT)
    try:
        rows = measure_cell(cell, arms, settings, print if rank == 0 else _drop)
        if rank == 0:
            write_csv(rows, folder / "rows.csv")
    finally:
        dist.destroy_process_group()


def _drop(line: str) -> None:
    """The first process says it."""
