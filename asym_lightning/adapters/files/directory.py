"""The factors of an adapter directory, of ours or of `peft`, read without the model that they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from asym_lightning.adapters.files.save import CONFIG_FILE, KEY_PREFIX, METADATA_KEY, TENSOR_FILE


@dataclass(frozen=True)
class Factors:
    """The factors of one layer, or of one slice of a fused layer.

    Args:
        A: (rank, d_in); None where a compact directory left it out.
        B: (d_out, rank).
        checksum: Of the A that was left out: equal where A is equal.
    """

    A: Tensor | None
    B: Tensor
    checksum: float | None = None


def read_factors(directory: Path | str) -> dict[str, Factors]:
    """Return the factors by layer, and by layer and slice where several slices of one layer have adapters.

    Slices of a fused layer are stored as one block-diagonal B. They are taken apart again, and the rows of a slice's B
    are those in which it is not zero. A directory that `peft` wrote has one pair of factors a layer.

    Args:
        directory: Adapter directory, or run directory that holds one as `adapter`.

    Raises:
        FileNotFoundError: If there is no adapter.
        ValueError: If a file is damaged or holds no factors.
    """
    directory = Path(directory)
    if not (directory / TENSOR_FILE).is_file() and (directory / "adapter").is_dir():
        directory = directory / "adapter"
    for name in (CONFIG_FILE, TENSOR_FILE):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"`{directory}` holds no adapter: it lacks {name}.")
    try:
        with safe_open(directory / TENSOR_FILE, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads((directory / CONFIG_FILE).read_text())
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"`{directory}` is damaged ({error}).") from error
    metadata = json.loads(header[METADATA_KEY]) if METADATA_KEY in header else config.get(METADATA_KEY) or {}
    factors: dict[str, Factors] = {}
    for key, B in tensors.items():
        if key.endswith(".lora_B.weight"):
            name = key.removesuffix(".lora_B.weight")
            A = tensors.get(f"{name}.lora_A.weight")
            name = name.removeprefix(KEY_PREFIX)
            factors |= _by_slice(name, A if A is None else A.flatten(1), B.flatten(1), metadata)
    if not factors:
        raise ValueError(f"`{directory}` holds no low-rank factors.")
    return factors


def _by_slice(name: str, A: Tensor | None, B: Tensor, metadata: Mapping[str, Any]) -> dict[str, Factors]:
    checksums = metadata.get("checksums", {})
    if name in checksums:  # compact: a key a slice, and no A
        return {name.removesuffix(".all"): Factors(A, B, checksums[name])}
    ranks = {key: rank for key, rank in metadata.get("ranks", {}).items() if key.rpartition(".")[0] == name}
    if A is None or sum(ranks.values()) != B.shape[1] or len(ranks) < 2:
        return {name.removesuffix(".all"): Factors(A, B)}
    sizes = list(ranks.values())
    blocks = zip(ranks, A.split(sizes), B.split(sizes, dim=1), strict=True)
    return {key: Factors(of_A, of_B[of_B.any(dim=1)] if of_B.any() else of_B) for key, of_A, of_B in blocks}


def singular_values(factors: Factors) -> Tensor | None:
    """Return the singular values of B A, largest first; None where A was left out.

    From the rank x rank core of the QRs of both factors; nothing of the size of the weight is formed.
    """
    if factors.A is None:
        return None
    R_of_A = torch.linalg.qr(factors.A.double().T).R
    R_of_B = torch.linalg.qr(factors.B.double()).R
    return torch.linalg.svdvals(R_of_B @ R_of_A.T)
