"""Rows of tables that train one by one, for new tokens: what PEFT calls ``trainable_token_indices``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.files.directory import CONFIG_FILE, TOKEN_ROWS, SavedAdapter
from asym_lightning.adapters.layers.token_rows import CHILD, token_rows_of
from asym_lightning.core.names import plain_modules

FIELD = "trainable_token_indices"


def in_peft_form(model: nn.Module, heads: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """What heads hold, with rows under PEFT's names for them; and their indices by the name of their layer.

    PEFT too keeps the rows as they are, and finds the layers that share the table.
    """
    names = {f"{layer}.{CHILD}.weight": f"{layer}{TOKEN_ROWS}" for layer in token_rows_of(model)}
    tensors = {names.get(name, name): tensor for name, tensor in heads.items()}
    return tensors, {layer: list(rows.indices) for layer, rows in token_rows_of(model).items()}


def as_heads(saved: SavedAdapter) -> SavedAdapter:
    """What was read, with rows as what the module that they train in holds.

    Raises:
        ValueError: There are none of those that the configuration names.
    """
    if not saved.token_rows and saved.peft_config.get(FIELD):
        raise ValueError(f"`{saved.path / CONFIG_FILE}` has `{FIELD}`, and the file beside it holds no such rows.")
    return replace(saved, others={**saved.others, **{f"{n}.{CHILD}.weight": t for n, t in saved.token_rows.items()}})


def indices_of(saved: SavedAdapter, model: nn.Module) -> dict[str, Sequence[int]]:
    """The indices of the rows that were read, by the name of their layer.

    Raises:
        ValueError: The rows are of no table of the model, or not as many as indices.
    """
    modules = dict(plain_modules(model))
    return {name: _indices(saved, name, rows, modules.get(name)) for name, rows in saved.token_rows.items()}


def _indices(saved: SavedAdapter, name: str, rows: Tensor, table: nn.Module | None) -> Sequence[int]:
    """The indices of rows: of the layer by the end of its name, or of the only one."""
    if not isinstance(table, (nn.Embedding, nn.Linear)):
        raise ValueError(f"`{saved.path}` holds rows of `{name}`, which is no embedding of the model.")
    written: Any = saved.peft_config.get(FIELD) or {}
    by_name = {"": written} if isinstance(written, list) else written
    indices = next((found for key, found in by_name.items() if not key or f".{name}".endswith(f".{key}")), [])
    length, width = table.weight.shape
    within = all(0 <= index < length for index in indices)
    if rows.shape != (len(set(indices)), width) or len(set(indices)) != len(indices) or not within:
        raise ValueError(
            f"`{saved.path / CONFIG_FILE}` has {len(indices)} `{FIELD}` of `{name}`, which has {length} rows of "
            f"{width} numbers, and the file holds rows {tuple(rows.shape)}."
        )
    return indices  # type: ignore[no-any-return]
