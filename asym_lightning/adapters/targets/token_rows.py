"""The tables of which a configuration trains some rows in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from asym_lightning.adapters.layers.token_rows import TokenRows, refusal
from asym_lightning.adapters.targets.bypasses import read_layers
from asym_lightning.adapters.targets.patterns import is_within, matching
from asym_lightning.core.messages import did_you_mean
from asym_lightning.core.names import plain_modules


def find_token_rows(
    model: nn.Module, wanted: Mapping[str, Sequence[int]], targets: Iterable[str], heads: Iterable[str]
) -> list[tuple[TokenRows, list[nn.Module]]]:
    """The rows that are to train, and the layers in which they are to stand: all that share a table.

    Args:
        model: The model.
        wanted: Indices by the name of an embedding or an output layer, or the end of its name.
        targets: Names of the layers that are adapted.
        heads: Names of the modules that train in full.

    Raises:
        ValueError: A name matches no layer or several, an index is none of the table's, or the layer, or one that
            shares its table, is of a kind whose rows can't be trained, trains otherwise, or is read and not called.
    """
    modules = {name: module for name, module in plain_modules(model) if name}
    tables = [name for name, module in modules.items() if isinstance(module, (nn.Embedding, nn.Linear))]
    found: list[tuple[TokenRows, list[nn.Module]]] = []
    seen: dict[int, str] = {}
    for key, indices in wanted.items():
        hits = matching(key, tables)
        if len(hits) != 1:
            which = f"several layers: {', '.join(hits[:4])}." if hits else "no embedding or linear layer"
            nearest = "" if hits else did_you_mean(key, sorted({name.rpartition(".")[2] for name in tables}))
            raise ValueError(f"`token_rows` {key!r} matches {which}{nearest}")
        table = modules[hits[0]]
        weight = table._parameters.get("weight")
        sharing = {n: m for n, m in modules.items() if m is table or (weight is not None and _holds(m, weight))}
        for name, layer in sharing.items():
            if reason := _refusal(model, name, layer, [*targets], [*heads]):
                raise ValueError(f"`token_rows` {key!r}: `{name}` {reason}.")
        assert weight is not None
        if id(weight) in seen:
            raise ValueError(f"`token_rows` {key!r} and {seen[id(weight)]!r} are of one table; name it once.")
        seen[id(weight)] = key
        if max(indices) >= len(weight):
            raise ValueError(f"`token_rows[{key!r}]` has {max(indices)}, but `{hits[0]}` has {len(weight)} rows.")
        found.append((TokenRows(table, indices), list(sharing.values())))
    return found


def _holds(module: nn.Module, weight: nn.Parameter) -> bool:
    return module._parameters.get("weight") is weight


def _refusal(model: nn.Module, name: str, layer: nn.Module, targets: Sequence[str], heads: Sequence[str]) -> str | None:
    if is_within(name, heads):
        return "trains in full already, as a head"
    if name in targets:
        return "is adapted, too; name it in `exclude`, or do without its rows"
    if read_layers(model, [name]):
        return "is read by the model's code, which does not call it"
    return refusal(layer)
