"""A sweep as a Slurm array: one task of the array a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def array_script(arguments: Sequence[str], num_runs: int, directory: Path, jobs: int) -> str:
    """Return a batch script whose tasks each make one run of the sweep; starting it again repeats nothing finished.

    Args:
        arguments: The sweep's own arguments, which each task repeats with `--only`.
        num_runs: Number of runs.
        directory: The sweep's directory, where the logs go.
        jobs: Number of tasks at a time.

    Example:
        >>> print(array_script(["--out", "runs/x"], 20, Path("runs/x"), jobs=4).splitlines()[-1])
        asym-lightning sweep --out runs/x --only "$SLURM_ARRAY_TASK_ID"
    """
    return f"""#!/bin/bash
#SBATCH --job-name={shlex.quote(directory.name)}
#SBATCH --array=0-{num_runs - 1}%{jobs}
#SBATCH --output={directory}/slurm_%a.txt
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
# Add what your cluster asks for, such as --partition, --account or --gpus-per-task=1.

asym-lightning sweep {shlex.join(arguments)} --only "$SLURM_ARRAY_TASK_ID"
"""
