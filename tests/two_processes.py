"""Run a function in two processes that Lightning and torch.distributed take for one run, on the CPU with gloo.

    outcomes = in_two_processes(train, tmp_path)

The processes come from the fork server of :mod:`tests.forked`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.forked import be_process, fork_server, rank_environments


@dataclass
class Outcome:
    """What became of one process: what the function returned, or its traceback, what it printed, and the exit code."""

    value: Any
    error: str
    printed: str
    exit_code: int | None


def in_two_processes(
    function: Callable[..., Any], *args: Any, check: bool = True, timeout: float = 180
) -> list[Outcome]:
    """Call `function(*args)` in two processes; it has to be importable, hence no closure.

    Args:
        function: Called in both.
        args: Its arguments, pickled.
        check: Fail unless both return.
        timeout: Seconds after which both are killed, and the test fails.
    """
    context = fork_server()
    processes, pipes, outcomes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder, str(rank)) for rank in range(2)]
        for environment, path in zip(rank_environments(2), printed, strict=True):
            ours, theirs = context.Pipe(duplex=False)
            how = (environment, theirs, path, 0.9 * timeout)
            process = context.Process(target=_child, args=(*how, function, args))
            process.start()
            theirs.close()
            processes.append(process)
            pipes.append(ours)
        deadline = time.monotonic() + timeout
        for process, pipe, path in zip(processes, pipes, printed, strict=True):
            value, error = None, ""
            with contextlib.suppress(EOFError):  # killed before it could say anything
                if pipe.poll(max(deadline - time.monotonic(), 0.1)):
                    value, error = pickle.loads(pipe.recv_bytes())
            process.join(max(deadline - time.monotonic(), 0.1))
            text = path.read_text(errors="replace") if path.is_file() else ""
            outcomes.append(Outcome(value, error, text, process.exitcode))
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    late = [rank for rank, outcome in enumerate(outcomes) if outcome.exit_code is None]
    assert not late, "\n".join(
        f"process {rank} did not end in {timeout} s; it printed, and was at:\n{outcomes[rank].printed[-8000:]}"
        for rank in late
    )
    if check:
        for rank, outcome in enumerate(outcomes):
            assert outcome.exit_code == 0, f"process {rank} exited with {outcome.exit_code}:\n{outcome.error}"
    return outcomes


def die(rank: int = 1) -> None:
    """End one of the processes as the kernel does when memory runs out; the other goes on."""
    if int(os.environ["RANK"]) == rank:
        os.kill(os.getpid(), signal.SIGKILL)


def _child(
    environment: dict[str, str],
    pipe: Connection,
    printed: Path,
    seconds: float,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    be_process(environment)
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):  # the descriptors: loggers hold the streams that were there before
        os.dup2(descriptor, stream)
    faulthandler.dump_traceback_later(seconds, file=descriptor)  # where it hangs
    value, error, code = None, "", 0
    try:
        value = function(*args)
    except BaseException:
        error, code = traceback.format_exc(), 1
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.flush()
    pipe.send_bytes(pickle.dumps((value, error)))
    pipe.close()
    os._exit(code)  # without the clean-up of what the fork server holds
