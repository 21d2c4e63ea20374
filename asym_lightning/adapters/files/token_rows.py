"""Rows of an embedding that PEFT trains one by one, for new tokens (``trainable_token_indices``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from asym_lightning.adapters.files.directory import CONFIG_FILE, SavedAdapter
from asym_lightning.adapters.layers.adapted import own_parameter
from asym_lightning.core.names import plain_modules

_FIELD = "trainable_token_indices"


def as_factors(saved: SavedAdapter, model: nn.Module) -> SavedAdapter:
    """What was read, with the rows that were trained as factors of the change that they are.

    Other rows ``R`` at some indices are the update ``(R - W) E`` of the transposed table, where E (indices,
    num_embeddings) has a one in each row: of low rank, for the new tokens are few. So is that of an output layer which
    shares the table.

    Args:
        saved: What was read.
        model: The model that it is read for.

    Raises:
        ValueError: The rows are of no embedding of the model, or not as many as indices, or adapted besides; or there
            are none of those that the configuration names.
    """
    if not saved.token_rows:
        if saved.peft_config.get(_FIELD):
            raise ValueError(f"`{saved.path / CONFIG_FILE}` has `{_FIELD}`, and the file beside it holds no such rows.")
        return saved
    modules = dict(plain_modules(model))
    factors, alphas = dict(saved.factors), dict(saved.peft_config.get("alpha_pattern") or {})
    for name, rows in saved.token_rows.items():
        table = modules.get(name)
        if not isinstance(table, nn.Embedding):
            raise ValueError(f"`{saved.path}` holds rows of `{name}`, which is no embedding of the model.")
        indices = _indices(saved, name, rows, table)
        chosen = nn.functional.one_hot(torch.tensor(indices), table.num_embeddings).to(rows)
        change = rows - own_parameter(table).detach()[indices].to(rows)
        sharing = [n for n, m in modules.items() if m._parameters.get("weight") is own_parameter(table)]
        for other in sharing:
            if f"{other}.lora_A" in factors or (other != name and other in saved.token_rows):
                raise ValueError(f"`{saved.path}` holds rows of `{name}`, and adapts `{other}` besides.")
            is_table = isinstance(modules[other], nn.Embedding)
            A, B = (chosen, change.T) if is_table else (change, chosen.T)
            factors[f"{other}.lora_A"], factors[f"{other}.lora_B"] = A, B
            # So that the strength is one.
            alphas[f"^{re.escape(other)}"] = sqrt(len(rows)) if saved.peft_config.get("use_rslora") else len(rows)
    own = {key: alpha for key, alpha in alphas.items() if key.startswith("^")}
    return replace(saved, peft_config={**saved.peft_config, "alpha_pattern": {**own, **alphas}}, factors=factors)


def _indices(saved: SavedAdapter, name: str, rows: Tensor, table: nn.Embedding) -> Sequence[int]:
    """The indices of rows: of the embedding by the end of its name, or of the only one."""
    written = saved.peft_config.get(_FIELD) or {}
    by_name = {"": written} if isinstance(written, list) else written
    indices = next((found for key, found in by_name.items() if not key or f".{name}".endswith(f".{key}")), [])
    within = all(0 <= index < table.num_embeddings for index in indices)
    if rows.shape != (len(set(indices)), table.embedding_dim) or len(set(indices)) != len(indices) or not within:
        raise ValueError(
            f"`{saved.path / CONFIG_FILE}` has {len(indices)} `{_FIELD}` of `{name}`, which has {table.num_embeddings} "
            f"rows of {table.embedding_dim} numbers, and the file holds rows {tuple(rows.shape)}."
        )
    return indices
