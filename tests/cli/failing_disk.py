"""A program that lets the disk fail at points spread over all that the quickstart writes, and looks what is left.

    LD_PRELOAD=failing_disk.so python -m tests.cli.failing_disk FOLDER NUMBER_OF_POINTS ENOSPC

It prints a line of JSON for each point. One process imports everything and forks one for each run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import asym_lightning.cli.export
import asym_lightning.cli.merge
import asym_lightning.cli.report
import asym_lightning.cli.training
import asym_lightning.data.images.digits
import asym_lightning.modules.images.image_classifier
import asym_lightning.report.page  # noqa: F401  # all here, before the first fork
from asym_lightning.adapters.files.directory import read_adapter
from asym_lightning.cli import main
from asym_lightning.core.files import SUFFIX, read_json
from asym_lightning.core.run_files import read_config
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint

_SHORT = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1"]
_QUICKSTART = ["--config", "quickstart", *_SHORT, "--trainer.enable_progress_bar=false"]
FIT = ["fit", *_QUICKSTART, "--trainer.max_epochs=2", "--ckpt_path=last", "--trainer.callbacks+=AdapterCheckpoint"]


def everything() -> int:
    """Fit, or go on with it; then do with the run whatever there is to do. The code of the first that fails."""
    code = main([*FIT, "--trainer.callbacks.filename=newest", "--trainer.callbacks.every_n_train_steps=1"])
    code = code or main(["predict", *_QUICKSTART, "--trainer.limit_predict_batches=1", "--ckpt_path=best"])
    if code:
        return code
    (run,) = (str(record.parent) for record in Path("runs").glob("*/*/record.json"))
    best = f"{run}/checkpoints/best.ckpt"
    for command, output in (("export", "exported"), ("merge", "merged")):
        if not Path(output).exists():
            code = code or main([command, run, "--output", output, "--checkpoint", best])
    return code or main(["report", "runs", "--out", "reported"])


def damage(folder: Path, has_room_to_clean: bool) -> list[str]:
    """What is not whole of what has a name by which anybody would take it for whole."""
    readers: dict[str, Callable[[Path], Any]] = {
        "*.ckpt": read_checkpoint,
        "adapter_config.json": lambda path: read_adapter(path.parent),
        "record.json": read_json,
        "config.yaml": lambda path: read_config(path.parent),
    }
    found = []
    for pattern, read in readers.items():
        for path in folder.rglob(pattern):
            if not any(part.endswith(SUFFIX) for part in path.parts):
                try:
                    read(path)
                except Exception as error:
                    found.append(f"{path.relative_to(folder)}: {error}")
    left = [str(path.relative_to(folder)) for path in folder.rglob(f".*{SUFFIX}")]
    return found + [f"{name} is left" for name in left if has_room_to_clean]


def in_child(work: Callable[[], Any]) -> Any:
    """Do something in a process of its own; what it returns, through JSON, or its traceback."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = work()
        except BaseException:
            result = traceback.format_exc()
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text or "null")


def run(folder: Path, first: int, number: int) -> Any:
    """Do everything in a folder whose disk fails from a call on; returns the code, the calls and what was printed."""

    def work() -> Any:
        os.chdir(folder)
        library = ctypes.CDLL(None)
        library.calls.restype = ctypes.c_long
        library.fail_from(ctypes.c_long(first), number, str(folder).encode())
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            code = everything()
        num_calls = library.calls()
        library.fail_from(ctypes.c_long(0), 0, b"")
        return {"code": code, "calls": num_calls, "printed": printed.getvalue()}

    folder.mkdir(exist_ok=True)
    return in_child(work)


def are_same(folder: Path, other: Path) -> bool:
    """Whether two folders of runs ended with the same bits, however often each was begun."""
    files = ("exported/adapter_model.safetensors", "merged/model.safetensors")
    pairs = [(load_file(folder / name), load_file(other / name)) for name in files]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


def point(folder: Path, first: int, number: int, whole: Path) -> dict[str, Any]:
    """What becomes of a run whose disk fails from a call on, and of the one after it."""
    failed = run(folder, first, number)
    found = in_child(lambda: damage(folder, number == errno.ENOSPC))
    again = run(folder, 0, 0)
    same = again["code"] == 0 and in_child(lambda: are_same(folder, whole))
    return {"call": first, "failed": failed, "damage": found, "again": again, "is_same": same}


if __name__ == "__main__":
    place, num_points, kind = Path(sys.argv[1]).resolve(), int(sys.argv[2]), getattr(errno, sys.argv[3])
    uninterrupted = run(place / "whole", 10**9, kind)
    print(json.dumps(uninterrupted), flush=True)
    for index in range(num_points):
        nth = 1 + index * (uninterrupted["calls"] - 1) // max(num_points - 1, 1)
        print(json.dumps(point(place / str(nth), nth, kind, place / "whole")), flush=True)
