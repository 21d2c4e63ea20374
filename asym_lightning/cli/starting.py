"""The seconds in which torch and Lightning are imported."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from asym_lightning.cli.processes import process_number

_LINE = "starting ..."


@contextmanager
def starting() -> Iterator[None]:
    """Say on a terminal that the program starts, and take the line back when it has.

    The garbage collector rests meanwhile: imports make a million objects that stay, and to look through them again and
    again for what does not is a tenth of the time. It never looks at them afterwards either, unless torch was there
    before, and with it objects of somebody else's that may go.
    """
    is_first = "torch" not in sys.modules
    is_seen = sys.stderr.isatty() and process_number() == 0
    was_enabled = gc.isenabled()
    gc.disable()
    if is_seen:
        print(_LINE, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_seen:
            print(" " * len(_LINE), end="\r", file=sys.stderr, flush=True)
        if was_enabled:
            if is_first:
                gc.freeze()
                atexit.register(gc.unfreeze)  # or extensions, as Triton's, say at the end that what is left has leaked
            gc.enable()
