"""Help texts, which need neither torch nor Lightning."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping

import asym_lightning
from asym_lightning.cli.class_names import class_names, class_path
from asym_lightning.cli.commands import TOOLS, TRAINING
from asym_lightning.cli.given import Given
from asym_lightning.cli.signatures import explanations, signature, summary

MAX_WIDTH = 100
VERSION = f"asym-lightning {asym_lightning.__version__}"
# The options that most runs need; a screen of 24 lines holds them all.
OPTIONS = {
    "--config FILE": "file, or one of `configs`; later ones win",
    "--ckpt_path PATH": "checkpoint or run to go on from, or to evaluate",
    "--seed_everything N": "seed of the run (default: 0)",
    "--test_after_fit true": "test the best checkpoint when fit ends",
    "--model NAME": "class of the task, such as ImageClassifier",
    "--model.backbone NAME": "model of timm or the hub, or a local folder",
    "--model.adapter.scheme NAME": "which factor trains (default: hB_zero_A_rand)",
    "--model.adapter.rank N": "rank of every adapter (default: 8)",
    "--model.adapter.alpha N": "B A is scaled by alpha / rank (default: 16)",
    "--model.adapter.targets NAMES": "[q,k,v], all-linear or parts of layers' names",
    "--model.optimizer.lr RATE": "learning rate",
    "--data NAME": "class of the data, such as DigitsDataModule",
    "--data.loader.batch_size N": "rows of a batch of one device",
    "--trainer.max_epochs N": "epochs to train",
    "--trainer.accelerator NAME": "cpu, gpu or auto (default: auto)",
    "--trainer.devices N": "devices to run on (default: auto)",
    "--trainer.strategy NAME": "how several devices share the work",
    "--trainer.precision NAME": "32-true, bf16-true, bf16-mixed or 16-mixed",
    "--print_config": "show what all configs and options come to",
    "--quiet": "say what came out, and nothing on the way",
}

_GIVEN_BY_MODULES = ("params", "optimizer")  # to optimizers and schedules
_DEFAULTS = {  # whatever the model and the data
    "model.adapter": "asym_lightning.adapters.AdapterConfig",
    "model.backbone_options": "asym_lightning.modules.BackboneOptions",
    "data.loader": "asym_lightning.data.LoaderOptions",
}


def program_help() -> str:
    """What the program can do, by command."""
    return f"""usage: lightning COMMAND [OPTION ...]        (asym-lightning is the same program)

Fine-tune timm and Hugging Face backbones with low-rank adapters whose A is random and frozen.

train and evaluate:
{_table(TRAINING)}
runs that are finished, and comparisons:
{_table(TOOLS)}
to begin:          lightning fit --config quickstart
for the options:   lightning COMMAND --help"""


def command_help(command: str) -> str:
    """The options of a training command that matter, and where the others are."""
    return f"""usage: lightning {command} --config FILE [--config FILE ...] [--OPTION VALUE ...]
{_table(OPTIONS)}all options: --help all    of a class: --model.help NAME, --data.help NAME,
--trainer.callbacks.help NAME, --model.adapter.help; without NAME: all names"""


def asked_help(command: str, given: Given) -> str | None:
    """The help text that options ask for; None if they ask for none, or for one that Lightning has to write."""
    for name, value in given.options:
        if name == "help":
            return None if value == "all" else command_help(command)
        if name.endswith(".help"):
            return _class_help(name.removesuffix(".help"), value, given)
    return None


def _class_help(key: str, name: str | None, given: Given) -> str | None:
    if name is None and (known := class_names(key)):
        rows = {name: summary(class_path(key, name) or "") for name in known}
        return f"{_table(rows)}--{key}.help NAME shows the options of one."
    asked = Given((*given.options, (key, name))) if name else given
    path = asked.class_at(key.split(".")) or _DEFAULTS.get(key, "")
    found = signature(path)
    if found is None:
        return None
    explained = explanations(path)
    lines = [*_wrapped(summary(path)), ""]
    for argument_name, argument in found.arguments.items():
        if argument.default is None and argument_name in _GIVEN_BY_MODULES:
            continue
        default = "required" if argument.default is None else f"default: {argument.default}"
        below = f"--{key}.{argument_name}.help shows its options." if argument.class_path else ""
        lines += _wrapped(f"--{key}.{argument_name}  ({argument.annotation}, {default})", "", "    ")
        lines += _wrapped(f"{explained.get(argument_name, '')} {below}", "    ", "    ")
    return "\n".join(lines)


def _table(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "".join(f"  {name:<{width}}  {text}\n" for name, text in rows.items())


def _wrapped(text: str, first: str = "", later: str = "") -> list[str]:
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
    plain = text.replace("``", "`").strip()
    return textwrap.wrap(plain, width, initial_indent=first, subsequent_indent=later, break_long_words=False)
