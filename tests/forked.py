"""Processes of one run, from multiprocessing's fork server, which has imported the libraries once for all tests."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "asym_lightning.cli.training",
    "asym_lightning.callbacks.injection",
    "asym_lightning.data.images.digits",
    "asym_lightning.modules.images.image_classifier",
]

_FIRST_PORT, _PORTS_OF_A_WORKER = 20_000, 500  # up to 32,767 with 25 workers; Linux gives away those above
_numbers = itertools.count(os.getpid())  # another session on this machine begins elsewhere


def fork_server() -> ForkServerContext:
    """Where processes come from that need not import anything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def free_port() -> int:
    """A port for processes to meet at, which nobody else is going to take before they do.

    It is one of this test worker's own, and below those that the system gives to whoever asks for any, as each process
    of another run does for the connections between them.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(_PORTS_OF_A_WORKER):
        port = _FIRST_PORT + worker * _PORTS_OF_A_WORKER + next(_numbers) % _PORTS_OF_A_WORKER
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No port is free.")


def rank_environments(num_processes: int) -> list[dict[str, str]]:
    """What tells each of several processes which of one run it is; nothing for one that is alone."""
    if num_processes == 1:
        return [{}]
    port = str(free_port())
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_processes), "NODE_RANK": "0"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def be_process(environment: Mapping[str, str]) -> None:
    """Let this process, just forked, be what its environment says."""
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # of workers: that of a process which nobody forked
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    torch.set_num_threads(1)
    rank_zero_only.rank = int(environment.get("RANK", 0))  # the fork server asked before there was a rank


def start(
    program: Callable[..., int | None],
    *args: Any,
    printed: Path,
    num_processes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> list[BaseProcess]:
    """Start a program in new processes.

    Args:
        program: It has to be importable; what it returns is the exit code.
        args: Its arguments, pickled.
        printed: File that all that they print is appended to.
        num_processes: Number of processes, which are one run of torch.distributed.
        environment: Variables to set in each.
    """
    processes = []
    for of_rank in rank_environments(num_processes):
        everything = {**(environment or {}), **of_rank}
        process = fork_server().Process(target=_run, args=(everything, str(printed), program, args))
        process.start()
        processes.append(process)
    return processes


def _run(environment: Mapping[str, str], printed: str, program: Callable[..., int | None], args: tuple) -> None:
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):  # the descriptors: loggers hold the streams that were there before
        os.dup2(descriptor, stream)
    be_process(environment)
    sys.exit(program(*args))
