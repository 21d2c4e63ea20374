"""Claims on runs, so that two sweeps in one directory share the work and never write to one run."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(run_directory: Path, sweep_directory: Path) -> Iterator[bool]:
    """Claim a run for as long as the context lasts; the value says whether it could be claimed.

    The claim is a lock on a file in `.claims`, which the kernel gives up when the process ends, however it ends:
    a killed sweep leaves no stale claim behind. The files stay, because removing a file that another
    process is about to lock would let two processes hold "the" lock.

    Args:
        run_directory: The run.
        sweep_directory: The sweep, in which the claims are kept.
    """
    claims = sweep_directory / ".claims"
    claims.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(run_directory.relative_to(sweep_directory)).encode()).hexdigest()[:16]
    with open(claims / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.write(f"{run_directory} is being run by process {os.getpid()}\n")
        file.flush()
        yield True
