"""`asym-lightning configs`: the configs that come with the package."""

from __future__ import annotations

import itertools
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from asym_lightning.cli.config_files import RECIPES, config_path, recipes
from asym_lightning.cli.usage import ToolParser, UsageError
from asym_lightning.core.files import write_text

DESCRIPTION = """List the configs that come with the package, print one, or copy one to change it.
`lightning fit --config NAME` takes each by its name; those at the end of the list are laid over that of a task."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = ToolParser("configs", description=DESCRIPTION)
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "copy"])
    parser.add_argument("name", nargs="?", help="for `show` and `copy`: name of a config, such as glue/rte")
    parser.add_argument("to", nargs="?", help="for `copy`: file to write; default: the config's own, below configs/")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    if options.action == "list":
        print(listing())
        return 0
    if options.name is None:
        raise UsageError(f"`configs {options.action}` needs the name of a config; `configs list` shows them.")
    source = recipes().get(options.name) or config_path(options.name)
    if not source.is_file():  # a pipe or a device, from which there is no end of text
        raise ValueError(f"`{options.name}` is no file.")
    if options.action == "show":
        print(source.read_text(), end="")
        return 0
    to = Path(options.to or Path("configs", source.relative_to(RECIPES)))
    if to.exists():
        raise FileExistsError(f"`{to}` exists; name another file after the config, or remove it.")
    write_text(to, source.read_text())
    print(f"config  {to}")
    return 0


def listing() -> str:
    """Each config with how its comment begins, wrapped where the terminal ends."""
    indent = max(map(len, recipes())) + 2
    room = max(shutil.get_terminal_size().columns, indent + 30)
    return "\n".join(
        textwrap.fill(f"{name:<{indent}}{_beginning(path)}", room, subsequent_indent=" " * indent)
        for name, path in recipes().items()
    )


def _beginning(path: Path) -> str:
    """The first sentence of a config's comment."""
    comment = itertools.takewhile(lambda line: line.startswith("# "), path.read_text().splitlines())
    return " ".join(line.removeprefix("# ") for line in comment).partition(". ")[0].rstrip(".")
