"""Which checkpoint of a run is meant: the newest, or the best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from asym_lightning.core.run_files import ADAPTER, find_checkpoints
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint


def checkpoint_of_run(run: str | Path, *, is_to_go_on: bool) -> Path:
    """What the folder of a run stands for: its best checkpoint, and its newest where training goes on.

    Without any it stands for its adapter, from which training can't go on.

    Raises:
        FileNotFoundError: There is none.
        ValueError: There are several, and nothing says which is best.
    """
    found = newest_checkpoint(find_checkpoints(run)) if is_to_go_on else best_checkpoint(run)
    if found is None and not is_to_go_on and Path(run, ADAPTER).is_dir():
        return Path(run, ADAPTER)
    if found is None:
        raise FileNotFoundError(f"the run {str(run)!r} has no checkpoint.")
    return found


def newest_checkpoint(checkpoints: Iterable[Path]) -> Path | None:
    """The checkpoint that was written last; None if there is none."""
    return max(checkpoints, key=_age, default=None)


def best_checkpoint(folder: str | Path, option: str = "--ckpt_path") -> Path | None:
    """The best checkpoint in a folder of runs, of the newest of them; None if there is none.

    A checkpoint knows which was the best when it was written. Where it does not, that is the one called best, or the
    only one.

    Args:
        folder: The folder.
        option: By which the user can name one, for the message.

    Raises:
        ValueError: If there are several, and nothing says which is best.
    """
    checkpoints = find_checkpoints(folder)
    newest = newest_checkpoint(checkpoints)
    if newest is None:
        return None
    of_run = [path for path in checkpoints if path.parent == newest.parent]
    states: Mapping[str, Any] = {}
    with suppress(ValueError):  # damaged, of which is told where it is chosen
        states = read_checkpoint(newest).get("callbacks", {})
    told = [state for state in states.values() if state.get("best_model_path")]
    told.sort(key=lambda state: state.get("monitor") is None)  # to one that monitors nothing the last is the best
    known = [newest.with_name(Path(state["best_model_path"]).name) for state in told]
    named = [path for path in of_run if path.stem.startswith("best")]
    best = [path for path in known if path.is_file()] or named or of_run
    if best[0] not in known and len(best) > 1:
        raise ValueError(
            f"the run {str(folder)!r} has {len(best)} checkpoints: choose one by `{option}`, of "
            f"{', '.join(map(str, best[:5]))}."
        )
    return best[0]


def number_at_end(path: Path) -> int:
    """The number at the end of a name; -1 if there is none.

    >>> number_at_end(Path("runs/version_12")), number_at_end(Path("best.ckpt"))
    (12, -1)
    """
    found = re.search(r"\d+$", path.stem)
    return int(found[0]) if found else -1


def _age(checkpoint: Path) -> tuple[int, float, bool]:
    """What is greatest for the newest checkpoint: a run's number tells more than clocks, which may be set back."""
    numbers = [number_at_end(folder) for folder in checkpoint.parents[:2] if folder.name.startswith("version_")]
    return max(numbers, default=-1), checkpoint.stat().st_mtime, checkpoint.stem.startswith("last")
