"""The CPU's kernels: the C files here, compiled by the machine's compiler when they are first needed.

:mod:`.build` does that once a machine and keeps the library in the user's cache folder. The kernels share torch's
OpenMP threads.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from pathlib import Path

from asym_lightning.adapters.kernels.cpu.build import shared_library
from asym_lightning.adapters.kernels.switch import kernels_are_wanted
from asym_lightning.core.cache import user_cache_dir

SOURCES = tuple(sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in (".c", ".h")))

_pointer, _size, _int, _float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
FUNCTIONS = {
    "drop": (_pointer, _size, _size, _size, _pointer, _size, _int),
    "drop_then_project": (_pointer, _pointer, _pointer, _pointer, _size, _size, _size, _pointer, _size, _int),
    "project_back_then_drop": (_pointer, _pointer, _pointer, _size, _size, _size, _pointer, _size, _int),
    "dot": (_pointer, _size, _pointer, _pointer, _size, _size, _size, _float, _int),
    "outer": (_pointer, _size, _pointer, _size, _pointer, _size, _size, _size, _float, _int),
}


@functools.cache
def c_library() -> ctypes.CDLL | None:
    """The compiled functions; ``None`` where they are switched off or, with a warning, where they can't be built."""
    if not kernels_are_wanted():
        return None
    try:
        library = ctypes.CDLL(str(shared_library(SOURCES, user_cache_dir() / "kernels")))
    except (OSError, RuntimeError) as error:
        warnings.warn(
            f"The kernels for a CPU can't be built ({error}); torch does their work, which is as exact and slower, and "
            "with dropout drops other entries for the same seed.",
            stacklevel=2,
        )
        return None
    for name, arguments in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def cpu_kernels_in_use() -> str | None:
    """By what the products and drops of a CPU are made in this process; ``None`` if it has made none.

    It names the C compiler, as in ``"C (gcc 12.2.0)"``, or is ``"torch"``.
    """
    if not c_library.cache_info().currsize:
        return None
    library = c_library()
    if library is None:
        return "torch"
    return f"C ({ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, 'compiler'))).decode()})"
