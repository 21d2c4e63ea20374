"""Safetensors files of named tensors and a description: written whole or not at all, and refused if they are others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asym_lightning.core.files import atomic_file

T = TypeVar("T")


def save_described(path: str | Path, key: str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors, in float32, and a description.

    Args:
        path: The file.
        key: By which the description is found, and the kind of file is told.
        tensors: By name.
        description: What JSON can hold.
    """
    written = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as staging:
        save_file(written, staging, metadata={"format": "pt", key: json.dumps(description)})


def read_described(
    path: str | Path, key: str, make: Callable[[dict[str, Tensor], dict[str, Any]], T], *, what: str, writer: str
) -> T:
    """Read what :func:`save_described` wrote.

    Args:
        path: The file.
        key: That it was written with.
        make: Makes what is wanted of tensors and description; it raises ``TypeError`` or ``ValueError`` where that is
            something else.
        what: The file is of, for messages.
        writer: What writes such files, for messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"`{path}` is no file of {what}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[key])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return make(tensors, description)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`{path}` is no file of {what} as {writer} writes it ({type(error).__name__}: {error})."
        ) from error
