"""``python -m benchmarks.coverage``: adapters on every module of timm and every type of transformers."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results/coverage.jsonl")
TARGETS = ("all-linear", "q v")


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the models that have no result yet, and write the table."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    from benchmarks.coverage.page import write_page
    from benchmarks.coverage.table import write_table

    path = Path(options.out)
    if not options.report:
        _load_libraries()
        names = options.names or all_names()
        jobs = [(name, arm, targets) for name in names for arm in options.arms for targets in options.targets]
        done = {(r["model"], r["arm"], r["targets"]) for r in read_rows(path) if r["verdict"] not in options.again}
        todo = [job for job in jobs if job not in done]
        print(f"{len(jobs) - len(todo)} of {len(jobs)} results are there already", flush=True)
        for name in dict.fromkeys(name for name, _, _ in todo):
            wanted = [(arm, targets) for job, arm, targets in todo if job == name]
            rows = _in_a_process(name, wanted, options.seconds, options.gigabytes)
            with path.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
            for row in rows:
                print(f"{row['model']}  {row['arm']}  {row['targets']}  {row['verdict']}  {row['reason']}", flush=True)
    write_table(read_rows(path), path.with_suffix(".md"))
    if path == RESULTS:
        write_page(read_rows(path))
    return 0


def all_names() -> list[str]:
    """Every model, after its library."""
    from benchmarks.coverage import timm_models, transformers_models

    found = [f"timm:{n}" for n in timm_models.names()] + [f"transformers:{n}" for n in transformers_models.names()]
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The last result of each model, library and choice of targets."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(r["model"], r["arm"], r["targets"]): r for r in rows}.values())


def rows_of(name: str, wanted: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Build one model and examine it."""
    from benchmarks.coverage.checks import Result, examine
    from benchmarks.coverage.models import subject

    try:
        model = subject(name)
    except RuntimeError as error:
        for arm, targets in wanted:
            yield Result(name, arm, targets, "not built", str(error)[:400]).to_dict()
        return
    for arm, targets in wanted:
        yield from (result.to_dict() for result in examine(model, arm, targets))


def _in_a_process(name: str, wanted: list[tuple[str, str]], seconds: int, gigabytes: float) -> list[dict[str, Any]]:
    """The results of one model, or why there are none: it took too long or too much memory, or crashed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, wanted, seconds, gigabytes, sender))
    process.start()
    sender.close()
    rows: list[dict[str, Any]] = []
    try:
        while True:
            rows.append(receiver.recv())
    except EOFError:
        process.join()
    missing = [w for w in wanted if w not in {(row["arm"], row["targets"]) for row in rows}]
    reason = f"the process ended with {process.exitcode} (limits: {seconds} s, {gigabytes} GB)"
    return rows + [{"model": name, "arm": a, "targets": t, "verdict": "not run", "reason": reason} for a, t in missing]


def _work(name: str, wanted: list[tuple[str, str]], seconds: int, gigabytes: float, sender: Any) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(gigabytes * 1e9),) * 2)
    # Of the processor's time, so that a busy machine changes no result.
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(spent.ru_utime + spent.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    for row in rows_of(name, wanted):
        sender.send(row)
    sender.close()


def _load_libraries() -> None:
    """All that every process needs, once; forks share it."""
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for row in rows_of("transformers:bert", [("ours", "q"), ("peft", "all-linear")]):
        del row


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", help="timm:NAME or transformers:TYPE; all by default")
    parser.add_argument("--arms", nargs="+", choices=("ours", "peft"), default=["ours", "peft"])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), help="words in one argument go together")
    parser.add_argument("--again", nargs="+", default=[], help="verdicts to look at once more, such as wrong")
    parser.add_argument("--seconds", type=int, default=180, help="of processor time that a model may take")
    parser.add_argument("--gigabytes", type=float, default=6.0, help="of memory that a model may take")
    parser.add_argument("--report", action="store_true", help="write the table of what there is")
    parser.add_argument("--out", default=RESULTS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
