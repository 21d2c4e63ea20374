"""The command line: `lightning` and `asym-lightning` are one and the same program."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from asym_lightning.cli.commands import TOOLS, run_tool
from asym_lightning.cli.interrupts import interruptible
from asym_lightning.cli.processes import process_number, report_error
from asym_lightning.cli.quiet import hushed, show_plain_warnings
from asym_lightning.cli.usage import UsageError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    What goes wrong is reported in one sentence on stderr, once however many processes it goes wrong in; `--debug` shows
    the traceback as well.

    Args:
        args: The command and its options; None takes them from the command line.

    Returns:
        0 if all went well, 1 if the command failed, 2 if it was not understood, 130 if it was interrupted.
    """
    try:
        with interruptible(ends_process=args is None):
            return _code_of(list(sys.argv[1:] if args is None else args))
    except KeyboardInterrupt as interrupt:  # out here, for one may come while an error is being reported
        if process_number() == 0:
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _code_of(arguments: list[str]) -> int:
    try:
        with hushed():
            return _run(arguments)
    except Exception as error:
        if "--debug" in arguments:
            raise
        from asym_lightning.cli.errors import one_sentence

        report_error(one_sentence(error))
        return EXIT_USAGE if isinstance(error, (argparse.ArgumentError, UsageError)) else EXIT_FAILURE


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in TOOLS:
        return run_tool(arguments[0], arguments[1:])
    # Here and below, not above: each takes longer to import than the line before it takes to run.
    from asym_lightning.cli.first_answer import first_answer

    if answer := first_answer(arguments):
        print(answer)
        return 0
    from asym_lightning.cli.starting import starting

    with starting():
        from asym_lightning.cli.training import TrainingCLI
    show_plain_warnings()
    TrainingCLI(arguments)
    return 0
