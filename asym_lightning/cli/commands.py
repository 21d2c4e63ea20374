"""What the program can do: Lightning's own commands, and tools, each a module with a `main`, imported when called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

TRAINING = {
    "fit": "train, and save the adapter of the best checkpoint",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data",
    "predict": "predict with a checkpoint",
}
TOOLS = {
    "doctor": "say what is installed, and whether a run works",
    "configs": "list, show and copy the configs that come along",
    "sweep": "fit arms x learning rates x seeds, and report them",
    "report": "make a table and a page of finished runs",
    "export": "write a run's adapter as a folder for PEFT",
    "merge": "write a run's model with the adapter folded in",
    "combine": "add, average or merge adapters that share A",
    "generate": "answer prompts with a run, an adapter or a model",
    "chat": "talk with a run, an adapter or a model",
    "lm_eval": "run lm-evaluation-harness, with --model asym",
    "similarity": "compare the factors of several adapters",
    "bounds": "bound the gap between training and test loss",
    "estimate": "estimate memory and traffic of a config's step",
    "calibrate": "choose a frozen A by data, for any run",
    "advise": "say which factor, A, layers and ranks to train",
}


def run_tool(name: str, arguments: Sequence[str]) -> int:
    """Run one of `TOOLS` and return its exit code."""
    return importlib.import_module(f"asym_lightning.cli.{name}").main(arguments)
