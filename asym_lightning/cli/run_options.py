"""Options that the commands on finished runs have in common."""

from __future__ import annotations

import argparse


def run_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser of a run directory, where to write, and whether to upload."""
    parser = argparse.ArgumentParser(prog=f"asym-lightning {command}", description=description, exit_on_error=False)
    parser.add_argument("run", metavar="RUN", help="run directory of a fit, such as runs/default/version_0")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write, which must not exist yet")
    parser.add_argument("--checkpoint", metavar="CKPT", help="checkpoint to use; default: the best of the run")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="also upload the folder to this repository")
    parser.add_argument("--private", action="store_true", help="make the repository private if it is new")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser
