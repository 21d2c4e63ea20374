"""One voice for a run of several processes, all of which execute the command."""

from __future__ import annotations

import os
import sys
import time

GRACE_SECONDS = 10.0
_PARENT = os.getppid()


def process_number() -> int:
    """Number of this process in its run, as torchrun, Lightning or SLURM say; 0 in a run of one.

    >>> process_number()
    0
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def report_error(sentence: str) -> None:
    """Print what went wrong on stderr: once if all processes fail alike, but always if one of them fails alone.

    The first process speaks at once. Where it fails too, whoever started this process ends it soon: Lightning's
    launcher, which is the first process, by going away, torchrun and srun with a signal. So the others wait a while,
    and speak if they are still wanted.
    """
    number = process_number()
    if number == 0:
        print(f"error: {sentence}", file=sys.stderr)
        return
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        if os.getppid() != _PARENT:
            return
        time.sleep(0.1)
    print(f"error in process {number}: {sentence}", file=sys.stderr)
