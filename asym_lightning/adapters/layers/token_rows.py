"""Rows of a vocabulary that train in full, for new tokens, while the rest of the table stays frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.core.dtensor import edited, whole
from asym_lightning.core.dtypes import InFloat32
from asym_lightning.core.names import plain_modules

CHILD = "token_rows"
_HOOK, _MERGED = "token_rows_hook", "merged_token_rows"


class TokenRows(InFloat32):
    """What stands in the place of some rows of a table: of an embedding, and of an output layer that shares it.

    Trained like a head, and saved as the rows that they are: those of new tokens started at random.

    Args:
        table: The layer whose rows they are.
        indices: Their indices.
    """

    index: Tensor
    places: Tensor

    def __init__(self, table: nn.Module, indices: Sequence[int]) -> None:
        super().__init__()
        weight: Any = table.weight
        dtype = torch.float32 if weight.dtype.itemsize < 4 else weight.dtype
        self.indices = tuple(indices)
        self.weight = nn.Parameter(torch.empty(len(indices), weight.shape[1], device=weight.device, dtype=dtype))
        # Buffers are in no file: they have their values where weights are on the meta device, too.
        device = "cpu" if weight.is_meta else weight.device
        self.register_buffer("index", torch.empty(len(indices), dtype=torch.long, device=device), persistent=False)
        # By index the place of its row here, or -1.
        self.register_buffer("places", torch.empty(len(weight), dtype=torch.long, device=device), persistent=False)
        self._set_places()
        if not weight.is_meta:
            self.reset_parameters(table)

    def reset_parameters(self, table: nn.Module) -> None:
        """Take the rows that the table has (communicates where they are sharded)."""
        self._set_places()  # of which `to_empty` leaves nothing
        weight: Any = table.weight
        with torch.no_grad(), edited(self.weight) as rows:
            rows.copy_(whole(weight)[self.index])

    def _set_places(self) -> None:
        self.index.copy_(torch.tensor(self.indices))
        self.places.fill_(-1).index_copy_(0, self.index, torch.arange(len(self.indices)).to(self.index))

    def embed(self, table: nn.Module, index: Tensor, out: Tensor) -> Tensor:
        """What an embedding gives, with these rows."""
        places = self.places[index]
        scale: Any = getattr(table, "embed_scale", 1)
        rows = F.embedding(places.clamp_min(0), self.weight) * scale
        return torch.where((places >= 0).unsqueeze(-1), rows.to(out.dtype), out)

    def score(self, layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
        """What an output layer gives, with these rows."""
        bias: Any = layer.bias
        scores = F.linear(x, self.weight.to(x.dtype), None if bias is None else bias[self.index])
        return out.index_copy(-1, self.index, scores.to(out.dtype))

    def extra_repr(self) -> str:
        """Shape, for ``print(model)``."""
        return f"{len(self.indices)} of {len(self.places)}x{self.weight.shape[1]}"


def token_rows_of(model: nn.Module) -> dict[str, TokenRows]:
    """The rows that a model has, each once, by the name of the layer that they are first in."""
    return {name.rpartition(".")[0]: module for name, module in plain_modules(model) if isinstance(module, TokenRows)}


def layers_with(model: nn.Module, rows: TokenRows) -> Iterator[nn.Module]:
    """The layers in which some rows stand."""
    return (module for module in model.modules() if getattr(module, CHILD, None) is rows)


def attach(layer: nn.Module, rows: TokenRows) -> None:
    """Let a layer give its output with other rows; it keeps its class, its weight and its keys."""
    layer.add_module(CHILD, rows)
    vars(layer)[_HOOK] = layer.register_forward_hook(_embed if isinstance(layer, nn.Embedding) else _score)


def detach(layer: nn.Module) -> None:
    """Undo :func:`attach`."""
    vars(layer).pop(_HOOK).remove()
    delattr(layer, CHILD)


def merge_token_rows(model: nn.Module, *, keep_weights: bool) -> None:
    """Write the rows into their tables, for every layer that shares one."""
    for rows in token_rows_of(model).values():
        layers = list(layers_with(model, rows))
        weight: Any = layers[0].weight
        was = weight.detach()[rows.index].clone()
        with torch.no_grad():
            weight.index_copy_(0, rows.index, rows.weight.detach().to(weight))
        for layer in layers:
            detach(layer)
        if keep_weights:
            vars(layers[0])[_MERGED] = ((rows,), tuple(layers), was)  # in tuples, so that nn.Module registers none


def unmerge_token_rows(model: nn.Module) -> None:
    """Undo :func:`merge_token_rows`, to the bit."""
    for module in [module for module in model.modules() if _MERGED in vars(module)]:
        (rows,), layers, was = vars(module).pop(_MERGED)
        weight: Any = module.weight
        rows.to(weight.device)
        with torch.no_grad():
            weight.index_copy_(0, rows.index, was.to(weight))
        for layer in layers:
            attach(layer, rows)


def reset_token_rows(model: nn.Module) -> None:
    """Take anew the rows that the tables have, as after their weights have been loaded."""
    for rows in token_rows_of(model).values():
        rows.reset_parameters(next(layers_with(model, rows)))


def remove_token_rows(model: nn.Module) -> None:
    """Take the rows off; the tables have those that they had."""
    for rows in token_rows_of(model).values():
        for layer in list(layers_with(model, rows)):
            detach(layer)


def refusal(layer: nn.Module) -> str | None:
    """Why rows of a layer can't be trained, to follow its name in a sentence; ``None`` if they can."""
    weight = layer._parameters.get("weight")
    if isinstance(layer, AdaptedLayer) or not isinstance(layer, (nn.Embedding, nn.Linear)) or weight is None:
        return f"is a {type(layer).__name__}, and no embedding or linear layer that is not adapted"
    if not weight.is_floating_point() or not type(weight).__module__.startswith("torch."):
        return f"has a weight of type {type(weight).__name__}, whose rows are no rows of numbers"
    return None


def _embed(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    rows: Any = getattr(layer, CHILD)
    return rows.embed(layer, inputs[0], out)  # type: ignore[no-any-return]


def _score(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
    rows: Any = getattr(layer, CHILD)
    return rows.score(layer, inputs[0], out)  # type: ignore[no-any-return]
