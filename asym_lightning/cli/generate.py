"""`asym-lightning generate`: what a run, an adapter or a model writes to prompts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asym_lightning.cli.starting import starting
from asym_lightning.cli.usage import UsageError
from asym_lightning.cli.writing.options import adapter_names, source_parser
from asym_lightning.core.files import atomic_file
from asym_lightning.core.kinds import Count, check_value

if TYPE_CHECKING:
    from asym_lightning.cli.writing.rows import Row
    from asym_lightning.cli.writing.writer import Writer

DESCRIPTION = """Answer prompts with what a run trained, with an adapter, or with a model as it is. One prompt is
answered on the screen, word by word; rows of a file become JSON lines, with their answers."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = source_parser("generate", DESCRIPTION)
    parser.add_argument("--prompt", metavar="TEXT", help="a prompt")
    parser.add_argument(
        "--prompts", metavar="FILE",
        help="jsonl, json, csv or tsv with `prompt`, or `instruction` and `input`, or `messages`, and `adapter` where "
        "a row has its own; - is standard input",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE.jsonl", help="file for the rows and their answers; default: the screen")
    parser.add_argument("--field", default="response", metavar="NAME", help="field of answers (default: response)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="rows at a time (default: 8)")
    options = parser.parse_args(arguments)
    if (options.prompt is None) == (options.prompts is None):
        raise UsageError("`generate` takes either a `--prompt` or `--prompts`.")
    check_value("--batch-size", options.batch_size, Count)
    names = adapter_names(options)

    with starting():
        from asym_lightning.cli.writing.rows import Row, read_rows
        from asym_lightning.cli.writing.writer import Screen, Writer

    if options.prompts is None:
        rows = [Row("", {"prompt": options.prompt})]
    else:
        rows = read_rows(options.prompts, options.field, names)
    if options.out is None:
        writer = Writer.of(options)
        if options.prompts is not None:
            print(answered(writer, rows, options), end="")
        else:
            with writer.adapters.using(options.use):
                writer.stream(writer.tokens(rows[0].record), Screen(writer))
        return 0
    with atomic_file(options.out) as staging:
        staging.touch()  # so that a folder that is not to be written to shows before the work
        staging.write_text(answered(Writer.of(options), rows, options), encoding="utf-8")
    print(f"answers  {options.out}")
    return 0


def answered(writer: Writer, rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Return rows with their answers as JSON lines, in their order; answers by one adapter are written together.

    Args:
        writer: Writes them.
        rows: What is asked.
        options: Those of the command.

    Raises:
        ValueError: If a row can't be answered; the message names it.
    """
    groups: dict[str | None, list[int]] = {}
    prompts = []
    for number, row in enumerate(rows):
        name = row.adapter or options.use
        with row.named():
            writer.adapters.check(name)
            prompts.append(writer.tokens(row.record))
        groups.setdefault(name, []).append(number)
    answers: dict[int, str] = {}
    for name, numbers in groups.items():
        with writer.adapters.using(name):
            for batch in batches([prompts[number] for number in numbers], options.batch_size):
                written = writer.write([prompts[numbers[i]] for i in batch])
                answers |= zip((numbers[i] for i in batch), written, strict=True)
                if sys.stderr.isatty():
                    end = "\r" if len(answers) < len(rows) else "\n"
                    print(f"{len(answers)} of {len(rows)}", end=end, file=sys.stderr, flush=True)
    lines = ({**row.record, options.field: answers[number]} for number, row in enumerate(rows))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def batches(prompts: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """Return numbers of prompts in batches of like length, the longest first.

    >>> batches([[1], [1, 2, 3], [1, 2]], 2)
    [[1, 2], [0]]
    """
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    return [order[start : start + size] for start in range(0, len(order), size)]
