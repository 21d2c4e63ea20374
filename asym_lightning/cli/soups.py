"""`report --soup`: soups as directories of adapters, scored by `validate` and `test` as their members were."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from asym_lightning.core.files import atomic_directory
from asym_lightning.core.run_files import ADAPTER, CONFIG, LOG

if TYPE_CHECKING:
    from asym_lightning.report.soups import ScoredSoup, Soup

SOUPS = "soups"  # folder beside the page


def scored_soups(soups: Sequence[Soup], out: Path) -> list[ScoredSoup]:
    """Write each soup to a folder of its own, score it there, and return its metrics by name.

    Args:
        soups: What to score.
        out: Directory of the report.
    """
    from asym_lightning.adapters import write_adapter
    from asym_lightning.lifecycle.label_names import save_label_names, shared_label_names

    scored: list[ScoredSoup] = []
    for soup, name in zip(soups, folder_names([soup.name for soup in soups]), strict=True):
        folder = out / SOUPS / name
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier report
        members = [run.directory / ADAPTER for run in soup.runs]
        with atomic_directory(folder / ADAPTER) as staging:
            write_adapter(soup.adapter, staging)
            save_label_names(shared_label_names(members), staging)
        metrics: dict[str, float] = {}
        for command in ("validate", "test"):
            metrics |= _evaluated(command, soup.runs[0].directory / CONFIG, folder)
        scored.append((soup, metrics))
    return scored


def folder_names(names: Sequence[str]) -> list[str]:
    """Names as those of folders, each another one, also where a file system does not tell case apart.

    >>> folder_names(["digits B only", "digits b/only", "digits LoRA"])
    ['digits_B_only', 'digits_b_only_2', 'digits_LoRA']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "soup"
        candidates = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
        taken = {other.casefold() for other in found}
        found.append(next(candidate for candidate in candidates if candidate.casefold() not in taken))
    return found


def _evaluated(command: str, config: Path, folder: Path) -> Mapping[str, float]:
    """The metrics of a command with the config of a run and the adapter of a folder, where its own files go."""
    from asym_lightning.cli.training import TrainingCLI

    logger = {"": "lightning.pytorch.loggers.CSVLogger", ".save_dir": folder, ".name": "", ".version": command}
    arguments = [command, "--config", str(config), "--ckpt_path", str(folder / ADAPTER), "--quiet"]
    arguments += [f"--trainer.logger{key}={value}" for key, value in logger.items()]
    with _printed_to(folder / LOG):
        cli = TrainingCLI(arguments)
    return {name: float(value) for name, value in cli.trainer.callback_metrics.items()}


@contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    """Add what is printed to a file, which is not the answer to what was asked."""
    with path.open("a") as file, redirect_stdout(file):
        yield
