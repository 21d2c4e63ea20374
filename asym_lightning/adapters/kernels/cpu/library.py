"""The CPU's kernels, compiled from the C files here by the machine's compiler when they are first needed.

That takes less than half a second, in every process that trains on a CPU, and is for the processor at hand: nothing is
kept that another machine could not run. They share torch's OpenMP threads.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = [str(Path(__file__).with_name(name)) for name in ("dropout.c", "narrow_products.c")]
# Apple's compiler knows no OpenMP, and some know no native processor: fewer threads or narrower vectors will do.
FLAGS = (("-march=native", "-fopenmp"), ("-march=native",), ())

_pointer, _size, _int, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
FUNCTIONS = {
    "drop": (_pointer, _size, _size, _size, _pointer, _size, _int),
    "drop_then_project": (_pointer, _pointer, _pointer, _pointer, _size, _size, _size, _pointer, _size, _int),
    "project_back_then_drop": (_pointer, _pointer, _pointer, _size, _size, _size, _pointer, _size, _int),
    "dot": (_pointer, _size, _pointer, _pointer, _size, _size, _size, _float, _int),
    "outer": (_pointer, _size, _pointer, _size, _pointer, _size, _size, _size, _float, _int),
}
_logger = logging.getLogger(__name__)


@functools.cache
def c_library() -> ctypes.CDLL | None:
    """The compiled functions, or ``None`` where no compiler takes the sources; the log says why."""
    try:
        library = _compiled()
    except (OSError, subprocess.SubprocessError) as error:
        _logger.info("no C kernels: %s", getattr(error, "stderr", None) or error)
        return None
    for name, arguments in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def _compiled() -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise FileNotFoundError("there is no C compiler (`cc`, `gcc`, `clang` or $CC)")
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "kernels.so")
        for flags in FLAGS:
            command = [*shlex.split(compiler), "-O3", "-shared", "-fPIC", *flags, *SOURCES, "-o", path]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                return ctypes.CDLL(path)
    raise subprocess.CalledProcessError(done.returncode, command, stderr=done.stderr)
