"""`asym-lightning combine`: one adapter of several, exact where they share A."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asym_lightning.cli.usage import ToolParser

DESCRIPTION = """Write one adapter directory of several. Where they share a frozen A, at one rank and over one backbone,
their B's are added up, which is exact: mean (the default) and sum take weights, and ties keeps the largest entries and
elects signs. Other A's are refused unless --join says how. Takes adapter directories, and runs that hold one."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; nothing is written if the adapters don't go together."""
    parser = ToolParser("combine", description=DESCRIPTION)
    parser.add_argument("adapters", nargs="+", metavar="DIR", help="adapter directories, or runs that hold one")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write, which must not exist yet")
    parser.add_argument("--method", default="mean", help="mean, sum or ties (default: mean)")
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="one for each DIR, may be negative; default: equal ones"
    )
    parser.add_argument(
        "--keep", type=float, help="share of the largest entries of each adapter to keep (default: 0.2 for ties)"
    )
    parser.add_argument(
        "--drop", type=float, default=0.0, help="probability to drop an entry, the others being scaled up (DARE)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of these drops (default: 0)")
    parser.add_argument(
        "--join", help="for adapters of different A's or ranks: concatenate (rank sum, exact) or project (to --rank)"
    )
    parser.add_argument("--rank", type=int, help="rank to project to; default: that of the first DIR")
    parser.add_argument("--heads-of", metavar="DIR", help="take the heads of this DIR; default: their mean")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)

    from asym_lightning.adapters import read_adapter, write_adapter
    from asym_lightning.adapters.arithmetic import combined
    from asym_lightning.cli.hub import new_folder
    from asym_lightning.core.messages import not_one_of
    from asym_lightning.lifecycle.label_names import save_label_names, shared_label_names

    if options.heads_of is not None and options.heads_of not in options.adapters:
        raise ValueError(not_one_of("`--heads-of`", options.heads_of, options.adapters))
    with new_folder(options.output) as folder:
        adapters = [read_adapter(directory) for directory in options.adapters]
        heads_of = None if options.heads_of is None else options.adapters.index(options.heads_of)
        result = combined(
            adapters,
            options.method,
            weights=options.weights,
            keep=options.keep,
            drop=options.drop,
            seed=options.seed,
            join=options.join,
            rank=options.rank,
            heads_of=heads_of,
        )
        write_adapter(result, folder)
        save_label_names(shared_label_names([adapter.path for adapter in adapters], heads_of), folder)
    print(f"combined  {Path(options.output)}  ({options.join or options.method} of {len(options.adapters)})")
    return 0
