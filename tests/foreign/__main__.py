"""Real projects as clients: `python -m tests.foreign [NAME ...] [--environments FOLDER]`.

Each project is installed from PyPI into an environment of its own, on top of the one that runs this command, so that
torch and Lightning are not installed again. There it lives the life of `life.py`, in two processes. A line a project
says what was measured, and the exit status is the number of those that failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = {
    "anomalib": "anomalib==2.7.0",
    "casanovo": "casanovo==5.2.1 pyarrow==18.1.0",  # the pyarrow below needs a numpy above its own
    "chemprop": "chemprop==2.3.1",
    "darts": "darts==0.48.1",
    "finetuning_scheduler": "finetuning-scheduler==2.14.1",
    "lightly": "lightly==1.6.0",
    "neuralforecast": "neuralforecast==3.3.0",
    "pytorch_forecasting": "pytorch-forecasting==1.8.0",
    "rfdetr": "rfdetr[train]==1.11.2",
    "rl4co": "rl4co==0.7.0",
    "scvi": "scvi-tools==1.4.2",
    "torchgeo": "torchgeo==0.8.1",
    "uq_box": "lightning-uq-box==0.2.0",
}


def environment(folder: Path, name: str) -> Path:
    """The Python of a project's environment, which is made where there is none."""
    home = folder / name
    python = home / "bin" / "python"
    if not (home / "done").is_file():
        venv.create(home, with_pip=True, clear=True)
        paths = {"base": str(home), "platbase": str(home)}
        below = Path(sysconfig.get_path("purelib", vars=paths), "zz_below.pth")
        below.write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[name].split()], check=True)
        (home / "done").touch()
    return python


def live(python: Path, name: str) -> str | None:
    """The last line of what went wrong in a project's life, or None."""
    paths = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with tempfile.TemporaryDirectory() as folder:
        for phase in ("whole", "resumed"):
            command = [python, HERE / "life.py", name, folder, phase]
            variables = {**os.environ, "PYTHONPATH": paths}
            done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
            if done.returncode:
                return done.stderr.strip().rpartition("\n")[2]
            print(done.stdout.strip().rpartition("\n")[2], flush=True)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REQUIREMENTS)}; all by default")
    parser.add_argument("--environments", type=Path, default=Path("build/foreign"))
    args = parser.parse_args()
    unknown = set(args.names) - set(REQUIREMENTS)
    if unknown:
        parser.error(f"no project {', '.join(sorted(unknown))}: there are {', '.join(REQUIREMENTS)}.")
    failed = 0
    for name in args.names or REQUIREMENTS:
        error = live(environment(args.environments.absolute(), name), name)
        failed += error is not None
        print(f"{name}: {error or 'right'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
