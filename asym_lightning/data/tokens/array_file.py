"""Arrays in one file that is mapped and not read: processes that use it share its pages, and memory holds what is used.

The file is one of safetensors: a header of JSON, and the arrays, largest numbers first, so that each lies at a multiple
of its numbers' size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_LENGTH = 8  # bytes of the header's length, and what the header's end is rounded up to
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16",
    "F32": "float32", "F64": "float64",
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class GrowingArrays(ExitStack):
    """Arrays that grow on disk, part by part, in files without names, which a killed process doesn't leave.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._counts: dict[str, int] = {}

    def count(self, name: str) -> int:
        """Numbers that an array has so far."""
        return self._counts.get(name, 0)

    def append(self, name: str, values: Array) -> None:
        """Append numbers to an array, which begins with the first ones."""
        if name not in self._files:
            self._files[name] = self.enter_context(TemporaryFile(dir=self._folder))  # noqa: SIM115
            self._dtypes[name], self._counts[name] = values.dtype, 0
        self._files[name].write(np.ascontiguousarray(values, self._dtypes[name]).tobytes())
        self._counts[name] += len(values)

    def copy_to(self, file: IO[bytes], metadata: Mapping[str, str]) -> None:
        """Write the whole file."""
        header: dict[str, Any] = {"__metadata__": dict(metadata)}
        names, end = sorted(self._files, key=lambda name: (-self._dtypes[name].itemsize, name)), 0
        for name in names:
            begin, end = end, end + self._counts[name] * self._dtypes[name].itemsize
            dtype = _NAMES[self._dtypes[name].name]
            header[name] = {"dtype": dtype, "shape": [self._counts[name]], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _LENGTH)
        file.write(len(text).to_bytes(_LENGTH, "little") + text)
        for name in names:
            self._files[name].seek(0)
            shutil.copyfileobj(self._files[name], file, 1 << 20)


def map_arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays of a file, mapped for reading, and its metadata.

    Raises:
        OSError: There is no such file.
        ValueError: It is damaged.
    """
    buffer = np.asarray(np.memmap(path, np.uint8, "r"))
    begin = _LENGTH + int.from_bytes(buffer[:_LENGTH].tobytes(), "little")
    header = json.loads(buffer[_LENGTH:begin].tobytes())
    if not isinstance(header, dict) or "__metadata__" not in header:
        raise ValueError(f"`{path}` is no file of arrays.")
    metadata, data = header.pop("__metadata__"), buffer[begin:]
    if len(data) != max((entry["data_offsets"][1] for entry in header.values()), default=0):
        raise ValueError(f"`{path}` is not complete.")
    arrays = {name: data[slice(*entry["data_offsets"])].view(_DTYPES[entry["dtype"]]) for name, entry in header.items()}
    return arrays, metadata
