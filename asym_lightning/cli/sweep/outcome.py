"""What became of a run: `run.json`, which a run has when it is over and not before."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from asym_lightning.cli.sweep.plan import Run

OUTCOME = "run.json"
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        status: "finished" or "failed".
        fingerprint: That of the run when it was made.
        error: Why it failed, in one sentence.
    """

    status: str
    fingerprint: str
    error: str | None = None


def read_outcome(run: Run) -> Outcome | None:
    """Return how a run ended, or None if it has not.

    Raises:
        ValueError: If the run in that directory was made with other settings.
    """
    path = run.directory / OUTCOME
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"`{path}` is not valid JSON ({error}); remove it to repeat the run.") from error
    outcome = Outcome(found["status"], found["fingerprint"], found.get("error"))
    if outcome.status == FINISHED and outcome.fingerprint != run.fingerprint:
        raise ValueError(
            f"`{run.directory}` was made with other configs or options than this sweep's: choose another `--out`, or "
            "remove that directory to repeat the run."
        )
    return outcome


def write_outcome(run: Run, error: str | None) -> None:
    """Write how a run ended, whole or not at all."""
    outcome = {
        "status": FAILED if error else FINISHED,
        "error": error,
        "task": run.task,
        "arm": run.arm,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "seeds": dict(run.seeds),
        "command": run.command,
        "fingerprint": run.fingerprint,
    }
    run.directory.mkdir(parents=True, exist_ok=True)
    unfinished = run.directory / f"{OUTCOME}.partial"
    unfinished.write_text(json.dumps(outcome, indent=1) + "\n")
    os.replace(unfinished, run.directory / OUTCOME)


def is_finished(run: Run) -> bool:
    """Whether a run is over and went well."""
    outcome = read_outcome(run)
    return outcome is not None and outcome.status == FINISHED
