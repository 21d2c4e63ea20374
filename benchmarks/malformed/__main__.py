"""Make malformed calls, and write a table of how they ended.

    python -m benchmarks.malformed                   # all areas
    python -m benchmarks.malformed adapters configs  # some
    python -m benchmarks.malformed --bad             # also print those that ended badly

What was done is kept beside the table, and a second call goes on from there; `--anew` begins again.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import sys
from pathlib import Path

from asym_lightning.core.messages import printable
from benchmarks.malformed.case import KILLED, Case, Verdict
from benchmarks.malformed.generate import generated
from benchmarks.malformed.judge import judge
from benchmarks.malformed.table import table

AREAS = (
    "adapters", "checkpoints", "configs", "options", "tables", "layouts", "images", "listed_images", "masks", "boxes",
    "sounds", "pictures", "backbones", "runs", "tools",
)  # fmt: skip
RESULTS = Path("benchmarks/results/malformed.md")


def cases_of(area: str, count: int, seed: int = 0) -> list[Case]:
    """The cases that are named, and so many others at random."""
    module = importlib.import_module(f"benchmarks.malformed.{area}")
    return [*module.named_cases(), *generated(module.strategy(), count, seed)]


def main() -> int:
    """Run the command and return its exit code: 1 where a case ended badly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.malformed", description=__doc__)
    parser.add_argument("areas", nargs="*", default=AREAS, metavar="area", help=f"of {', '.join(AREAS)}")
    parser.add_argument("--cases", type=int, default=200, help="cases at random of each area")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table")
    parser.add_argument("--done", type=Path, default=Path("malformed.jsonl"), help="what was done so far")
    parser.add_argument("--anew", action="store_true", help="forget what was done so far")
    parser.add_argument("--bad", action="store_true", help="print the cases that ended badly")
    options = parser.parse_args()
    if options.anew:
        options.done.unlink(missing_ok=True)
    logging.disable(logging.WARNING)
    verdicts = _read(options.done)
    for area in options.areas:
        for case in cases_of(area, options.cases, options.seed):
            if (area, case.name) in verdicts:
                continue
            # A line before and one after: of a call that ends the process, the first stays.
            _note(options.done, Verdict(area, case.name, KILLED, "", 0.0))
            verdict = judge(area, case)
            _note(options.done, verdict)
            verdicts[area, case.name] = verdict
            if options.bad and not verdict.is_good:
                print(printable(f"{verdict.area}: {verdict.case}\n    {verdict.kind}: {verdict.message}"), flush=True)
    found = [verdict for verdict in verdicts.values() if verdict.area in options.areas]
    text = table(found)
    options.out.write_text(text)
    print(text)
    return int(any(not verdict.is_good for verdict in found))


def _read(path: Path) -> dict[tuple[str, str], Verdict]:
    if not path.exists():
        return {}
    verdicts = [Verdict(**json.loads(line)) for line in path.read_text().splitlines()]
    return {(verdict.area, verdict.case): verdict for verdict in verdicts}


def _note(path: Path, verdict: Verdict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
