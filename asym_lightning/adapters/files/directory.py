"""The layout of adapter directories, PEFT's: ``adapter_config.json`` and ``adapter_model.safetensors``.

What they hold is read and checked here once, for the model that it is loaded into and for reports that have no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asym_lightning.adapters.files.schema import (
    COMPACT_TYPE,
    check_factors,
    check_finite,
    check_heads,
    check_metadata,
    check_peft_config,
    check_tensors,
    first_not_finite,
)
from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.layers.kinds.registry import kinds
from asym_lightning.core.files import atomic_file, json_text, parse_json, read_json, remove_unfinished
from asym_lightning.core.messages import first_line
from asym_lightning.core.run_files import ADAPTER, ADAPTER_CONFIG

CONFIG_FILE, TENSOR_FILE = ADAPTER_CONFIG, "adapter_model.safetensors"
METADATA_KEY = "asym_lightning"
KEY_PREFIX = "base_model.model."
TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"


class AdapterContents(NamedTuple):
    """What an adapter directory holds.

    Attributes:
        tensors: By their names in the tensor file.
        header: Texts in the tensor file's header.
        config: The config file.
    """

    tensors: dict[str, Tensor]
    header: dict[str, str]
    config: dict[str, Any]


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter directory that was read and is whole.

    Args:
        path: The directory.
        peft_config: ``adapter_config.json``.
        config: Our configuration as it was saved; None where `peft` wrote the directory.
        ranks: Rank by layer and slice; empty where `peft` wrote the directory.
        scaling: Of every layer, where we wrote the directory and it has but one.
        checksums: Of the A's that a compact directory leaves out, by layer and slice.
        factors: By ``layer.lora_A`` and ``layer.lora_B``; in a compact directory by ``layer.slice.lora_B``.
        others: What the heads hold, by its name in the model.
        base: Copies of frozen weights, which `peft` writes beside the factors of an output layer; by their names.
        token_rows: Rows of embeddings that `peft` trained in full, by the embedding's name.
        backbone: The first numbers of some weights that it was trained over; empty where the directory does not say.
        keys: What the tensor file calls factors, `others` and `base`.
    """

    path: Path
    peft_config: Mapping[str, Any]
    config: Mapping[str, Any] | None
    ranks: Mapping[str, int]
    scaling: float | None
    checksums: Mapping[str, float]
    factors: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    base: Mapping[str, Tensor]
    token_rows: Mapping[str, Tensor]
    backbone: Mapping[str, list[float]] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_compact(self) -> bool:
        """Whether frozen A's may have been left out, for which `peft` has no word."""
        return self.peft_config["peft_type"] == COMPACT_TYPE

    @property
    def heads(self) -> list[str]:
        """What the modules end in that were trained in full, as `peft` has them or by their names in the model."""
        return [name.removeprefix(KEY_PREFIX) for name in self.peft_config.get("modules_to_save") or ()]

    @property
    def paths(self) -> list[str]:
        """Where factors are: layers and, in a compact directory, layers and slices."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.factors))


def peft_scaling(peft_config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What `peft` multiplies the ``B A`` of a layer by.

    >>> peft_scaling({"lora_alpha": 8, "alpha_pattern": {"fc": 4}}, "blocks.0.fc", rank=2)
    2.0
    """
    patterns = (peft_config.get("alpha_pattern") or {}).items()
    alpha = next((a for key, a in patterns if re.match(rf"(.*\.)?({key})$", layer)), peft_config["lora_alpha"])
    return alpha / (rank**0.5 if peft_config.get("use_rslora") else rank)


def write_directory(directory: Path, contents: AdapterContents) -> None:
    """Write both files; each appears whole or not at all, and neither if one can't be written."""
    remove_unfinished(directory)
    with atomic_file(directory / CONFIG_FILE) as config, atomic_file(directory / TENSOR_FILE) as tensors:
        save_file(contents.tensors, tensors, metadata=contents.header)
        config.write_text(json_text(contents.config))


def write_adapter(adapter: SavedAdapter, directory: str | Path) -> None:
    """Write an adapter as it would be read, each file whole or not at all.

    Args:
        adapter: What was read, or is made of what was read.
        directory: Where to write; other files there are left alone.

    Raises:
        ValueError: A tensor holds NaN or infinity.
    """
    tensors = {
        adapter.keys[name]: tensor.contiguous()
        for name, tensor in {**adapter.factors, **adapter.others, **adapter.base}.items()
    }
    if (name := first_not_finite(tensors)) is not None:
        raise ValueError(f"`{name.removeprefix(KEY_PREFIX)}` would hold NaN or infinity: nothing is written.")
    peft_config, header = dict(adapter.peft_config), {"format": "pt"}
    if adapter.config is not None:
        said = {"config": adapter.config, "ranks": adapter.ranks, "scaling": adapter.scaling}
        said |= {"checksums": adapter.checksums, "backbone": adapter.backbone}
        metadata = {name: value for name, value in said.items() if value is not None}
        if adapter.is_compact:
            peft_config[METADATA_KEY] = metadata
        else:
            header[METADATA_KEY] = json.dumps(metadata)
    write_directory(Path(directory), AdapterContents(tensors, header, peft_config))


def is_adapter(directory: Path) -> bool:
    """Whether a directory was meant for an adapter: one of the two files is in it."""
    return any((directory / name).is_file() for name in (CONFIG_FILE, TENSOR_FILE))


def read_adapter(directory: str | Path) -> SavedAdapter:
    """Read an adapter directory of ours or of `peft`, full or compact.

    Args:
        directory: The directory, or that of a run, which has it as `adapter`.

    Raises:
        FileNotFoundError: There is no adapter.
        ValueError: A file is damaged, or holds what is no low-rank adapter; the message names file and key.
    """
    path = Path(directory)
    if not is_adapter(path) and (path / ADAPTER).is_dir():
        path = path / ADAPTER
    for name in (CONFIG_FILE, TENSOR_FILE):
        if not (path / name).is_file():
            raise FileNotFoundError(f"`{path}` holds no adapter: it lacks {name}.")
    peft_config = read_json(path / CONFIG_FILE)
    check_peft_config(peft_config, path / CONFIG_FILE)
    tensors, header = _read_tensors(path / TENSOR_FILE)
    factors, others, base, token_rows, keys = _sort_keys(tensors, path / TENSOR_FILE)
    metadata: Mapping[str, Any] = {}
    if peft_config["peft_type"] == COMPACT_TYPE:
        metadata = _metadata(peft_config.get(METADATA_KEY), path / CONFIG_FILE)
    elif METADATA_KEY in header:
        metadata = _metadata(header[METADATA_KEY], path / TENSOR_FILE)
    saved = SavedAdapter(
        path, peft_config, metadata.get("config"), metadata.get("ranks", {}), metadata.get("scaling"),
        metadata.get("checksums", {}), factors, others, base, token_rows, metadata.get("backbone", {}), keys,
    )  # fmt: skip
    check_tensors({**factors, **token_rows}, others, path / TENSOR_FILE)
    check_factors(factors, saved.ranks, saved.checksums, path / TENSOR_FILE, _laid_out_by_kind(tensors))
    check_heads(others, saved.heads, path / TENSOR_FILE)
    check_finite({**factors, **base, **token_rows}, path / TENSOR_FILE)  # what heads hold, the model knows the kind of
    return saved


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"`{path}` is damaged or no safetensors file ({first_line(error)}).") from error


def _sort_keys(tensors: Mapping[str, Tensor], path: Path) -> tuple[Any, ...]:
    """Factors under ``layer.lora_A`` and ``layer.lora_B``, heads and frozen weights by their names, rows of tokens.

    Last, what the file calls each of them.
    """
    # A or B by what some kind of layer calls it.
    endings = {
        name: factor for kind in kinds() for name, factor in zip(kind.peft_names, ("lora_A", "lora_B"), strict=True)
    }
    factors: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    base: dict[str, Tensor] = {}
    token_rows: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(KEY_PREFIX)
        if ending := next((ending for ending in endings if name.endswith(f".{ending}")), None):
            name = name.removesuffix(ending) + endings[ending]
            factors[name] = tensor
        elif "lora_" in name or not key.startswith(KEY_PREFIX):
            raise ValueError(f"`{path}` holds `{key}`, which is neither a LoRA factor nor a head's tensor.")
        elif name.endswith(TOKEN_ROWS):
            token_rows[name.removesuffix(TOKEN_ROWS)] = tensor
        elif ".base_layer." in name:
            name = name.replace(".base_layer.", ".")
            base[name] = tensor
        else:
            others[name] = tensor
        keys[name] = key
    if not factors:
        raise ValueError(f"`{path}` holds no LoRA factors.")
    return factors, others, base, token_rows, keys


def _laid_out_by_kind(tensors: Mapping[str, Tensor]) -> set[str]:
    """Layers of a kind that calls its factors by names of its own, and so may keep them in shapes of its own."""
    own = [f".{name}" for kind in kinds() for name in kind.peft_names if kind.peft_names != AdaptedLayer.peft_names]
    names = [key.removeprefix(KEY_PREFIX) for key in tensors]
    return {name.removesuffix(ending) for ending in own for name in names if name.endswith(ending)}


def _metadata(written: Any, path: Path) -> Mapping[str, Any]:
    """What we wrote beside PEFT's layout, checked."""
    metadata = parse_json(written, f"`{METADATA_KEY}` in `{path}`") if isinstance(written, str) else written
    check_metadata(metadata, path, METADATA_KEY)
    return metadata  # type: ignore[no-any-return]
