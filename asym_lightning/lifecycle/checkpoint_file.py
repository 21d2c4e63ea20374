"""Checkpoint files, which may come from anybody: read without running anything, and checked to be checkpoints."""

from __future__ import annotations

import io
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from asym_lightning.core.kinds import NumberOrZero, check_fields
from asym_lightning.core.messages import first_line, shown

_FIELDS: Mapping[str, Any] = {
    "state_dict": Mapping[str, Any],
    "pytorch-lightning_version": str,
    "epoch": NumberOrZero,
    "global_step": NumberOrZero,
    "hyper_parameters": Mapping[str, Any],
    "loops": Mapping[str, Mapping[str, Any]],
    "callbacks": Mapping[str, Mapping[str, Any]],
    "optimizer_states": list[Mapping[str, Any]],
    "lr_schedulers": list[Mapping[str, Any]],
    "adapter_description": Mapping[str, Any],
    "random_state": Mapping[str, Any],
    "places": list[Mapping[str, Any]],
}
_OF_TRAINING = ("epoch", "global_step", "loops", "optimizer_states", "lr_schedulers")


def read_checkpoint(path: str | Path, *, is_to_go_on: bool = False, weights_only: bool = True) -> dict[str, Any]:
    """Read a checkpoint file that Lightning wrote.

    Args:
        path: The file.
        is_to_go_on: Whether training is to go on from it, for which weights alone do not do.
        weights_only: Run no code that it holds; false is for who wrote it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint, damaged or truncated, or it holds code.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint `{path}`.")
    _check_archive(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as error:
        if weights_only and (code := _code_in(path)):
            raise ValueError(
                f"`{path}` holds code (`{code}`), which is not run; a checkpoint holds tensors and plain values alone."
            ) from None
        raise ValueError(f"`{path}` is damaged: it can't be read as a checkpoint.") from error
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise ValueError(f"`{path}` is not a checkpoint: it holds a {kind}, not a mapping with a `state_dict`.")
    required = ("state_dict", "pytorch-lightning_version", *(_OF_TRAINING if is_to_go_on else ()))
    try:
        check_fields("it", checkpoint, _FIELDS, required)
        if not re.match(r"\d+\.\d+", checkpoint["pytorch-lightning_version"]):
            raise ValueError(f"`pytorch-lightning_version` {shown(checkpoint['pytorch-lightning_version'])} is none.")
    except (TypeError, ValueError) as error:
        hint = ""
        if is_to_go_on and "optimizer_states" not in checkpoint and "state_dict" in checkpoint:
            hint = " It may be of weights alone (`save_weights_only: true`), from which training can't go on."
        raise ValueError(f"`{path}` is not a whole checkpoint: {first_line(error)}{hint}") from error
    return checkpoint


def check_states(states: Mapping[str, Any]) -> None:
    """Check that what callbacks want to keep can be read again without running code.

    Args:
        states: What their `state_dict` has returned, by their `state_key`.

    Raises:
        ValueError: One holds something else than tensors and plain values.
    """
    for key, state in states.items():
        if (found := _not_plain(state)) is not None:
            raise ValueError(
                f"The state of the callback {key.partition('{')[0]} holds a {type(found).__name__}, which no "
                "checkpoint gives back, for it is read without running code: let its `state_dict` return plain values, "
                "such as `str(path)`, or register the class with `torch.serialization.add_safe_globals`."
            )


def with_plain_numbers(value: Any) -> Any:
    """What is going to be kept, with Python's numbers for numpy's, which are no plain values but code to the reader.

    >>> with_plain_numbers({"lr": np.float64(0.5), "steps": (np.int64(3), None)})
    {'lr': 0.5, 'steps': (3, None)}
    """
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, OrderedDict):
        return type(value)((key, with_plain_numbers(inner)) for key, inner in value.items())
    return type(value)(map(with_plain_numbers, value)) if type(value) in (list, tuple) else value


def _not_plain(value: Any) -> Any:
    """The first thing in a state that can't be read again; None if there is none."""
    if value is None or isinstance(value, (Tensor, str, bytes, bool, int, float, np.generic)):
        return None
    if type(value) in (dict, OrderedDict, list, tuple, set):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return next((found for item in items if (found := _not_plain(item)) is not None), None)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return value if get_unsafe_globals_in_checkpoint(buffer) else None


def _code_in(path: Path) -> str | None:
    """A name in a checkpoint of something to call, which tensors and plain values do not need."""
    try:
        return next(iter(sorted(get_unsafe_globals_in_checkpoint(path))), None)
    except Exception:  # as many kinds as there are ways to damage a pickle
        return None


def _check_archive(path: Path) -> None:
    """Check that a file is the kind of archive that torch writes, without unpacking it."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not a checkpoint, or it is truncated.")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"`{path}` is not a checkpoint, or it is truncated.") from error
    # What torch writes is not compressed; a few bytes that are may unpack to more than there is memory.
    is_compressed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if is_compressed or not any(part.filename.endswith("/data.pkl") for part in parts):
        raise ValueError(f"`{path}` is an archive, but not a checkpoint that PyTorch wrote.")
