"""What became of a run: `run.json`, which a run has when it is over and not before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asym_lightning.cli.sweep.plan import Run
from asym_lightning.core.files import read_json, write_json
from asym_lightning.core.run_files import OUTCOME

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
    try:
        found: dict[str, Any] = read_json(run.directory / OUTCOME)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{error} Remove it to repeat the run.") from error
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
    write_json(run.directory / OUTCOME, outcome)


def is_finished(run: Run) -> bool:
    """Whether a run is over and went well."""
    outcome = read_outcome(run)
    return outcome is not None and outcome.status == FINISHED
