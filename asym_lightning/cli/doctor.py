"""`asym-lightning doctor`: what is installed, what the machine has, and whether a run works."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from io import StringIO
from pathlib import Path

from asym_lightning.cli.usage import ToolParser
from asym_lightning.core.extras import EXTRAS, projects

DESCRIPTION = """Say which versions and extras are installed, what the machine has and which program `lightning` is, and
make two steps of the quickstart, whose files are removed. Ends with 1 if the two steps fail."""
REQUIRED = ("torch", "lightning", "torchmetrics", "jsonargparse", "safetensors")
NAME, PROGRAM = "asym-lightning", "lightning"
TWO_STEPS = (
    "--config=quickstart", "--quiet", "--trainer.accelerator=cpu", "--trainer.max_steps=2",
    "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false", "--trainer.callbacks=[]",
    "--test_after_fit=false",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; it fails if the two steps do, whatever else is missing."""
    parser = ToolParser("doctor", description=DESCRIPTION)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument(
        "--tune",
        action="store_true",
        help="also time the kernels on every GPU, and launch them as is fastest from now on",
    )
    options = parser.parse_args(arguments)
    if options.tune:
        import torch

        if not torch.cuda.is_available():
            parser.error("`--tune` times kernels on a GPU, and there is none.")
    for name, lines in {
        "versions": versions(),
        "extras": extras(),
        "devices": devices(),
        "memory": memory(),
        "kernels": kernels(),
        **({"launches": launches()} if options.tune else {}),
        "program": program(),
        "two steps": two_steps(),
    }.items():
        for index, line in enumerate(lines):
            print(f"{'' if index else name:<11}{line}", flush=True)
    return 0


def versions() -> Iterator[str]:
    """Of this package, of Python and of what every part needs."""
    yield f"{NAME} {version(NAME)}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield ", ".join(f"{project} {version(project)}" for project in REQUIRED)


def extras() -> Iterator[str]:
    """Of each extra what is there, and how to install the rest."""
    for extra in dict.fromkeys(EXTRAS.values()):
        numbers = {project: _version(project) for project in projects(extra)}
        there = ", ".join(f"{project} {number}" for project, number in numbers.items() if number)
        missing = ", ".join(project for project, number in numbers.items() if not number)
        cure = f"no {missing}: pip install '{NAME}[{extra}]'" if missing else ""
        yield f"[{extra}] " + "; ".join(filter(None, (there, cure)))


def devices() -> Iterator[str]:
    """The processor's cores, and all GPUs with their memory."""
    import torch

    yield f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if torch.backends.mps.is_available():
        yield "Apple GPU (mps)"


def memory() -> Iterator[str]:
    """What is free of the memory, where the system tells, and of the disk of this folder."""
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        free, total = (os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
        yield f"{free / 1e9:.1f} of {total / 1e9:.1f} GB unused"
    disk = shutil.disk_usage(".")
    yield f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free on the disk of this folder"


def kernels() -> Iterator[str]:
    """By what adapters compute on a CPU; a warning says why it is not C."""
    from asym_lightning.adapters.kernels.cpu.library import c_library, cpu_kernels_in_use

    c_library()
    yield f"{cpu_kernels_in_use()} on a CPU"


def launches() -> Iterator[str]:
    """Time how kernels are launched on every GPU, and keep what is fastest; it takes some minutes."""
    import torch

    from asym_lightning.adapters.kernels.dropout_triton import seconds
    from asym_lightning.adapters.kernels.launches import SHAPES, tune

    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        file = tune(device, SHAPES, partial(seconds, device=device))
        yield f"{len(SHAPES)} shapes timed on {torch.cuda.get_device_name(device)}, the fastest launches kept in {file}"


def program() -> Iterator[str]:
    """Whether `lightning` is this package's program: others install one of that name, and the last one wins."""
    path = shutil.which(PROGRAM)
    owners = sorted({entry.dist.name for entry in entry_points(group="console_scripts", name=PROGRAM) if entry.dist})
    others = [owner for owner in owners if owner != NAME]
    if path is None:
        yield f"`{PROGRAM}` is not on the path; `python -m asym_lightning` always works"
    elif "asym_lightning" in Path(path).read_text(errors="replace"):
        yield f"`{PROGRAM}` is {path}, of this package"
    else:
        yield f"`{PROGRAM}` is {path}, of {' or '.join(others) or 'another package'}: use `{NAME}`, the same program"


def two_steps() -> Iterator[str]:
    """Make two steps of the quickstart."""
    from asym_lightning.cli.training import TrainingCLI

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        TrainingCLI(["fit", *TWO_STEPS, "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"])
    yield "of the quickstart work"


def _version(project: str) -> str | None:
    try:
        return version(project)
    except PackageNotFoundError:
        return None
