"""Heads by row: each row of a batch goes through the head of its adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from asym_lightning.core.names import plain_state, submodule

HeadState = Mapping[str, Tensor]


@contextmanager
def heads_by_row(
    model: nn.Module,
    heads: Mapping[str, Mapping[str, HeadState]],
    names: Sequence[str | None],
    *,
    are_filled: bool = False,
) -> Iterator[None]:
    """Let the heads of a model compute for each row with what that row's adapter brings.

    Args:
        model: The model.
        heads: By adapter and by the head's name, what it holds.
        names: The adapter of each row; ``None``, and an adapter without such a head, mean the model's own.
        are_filled: Whether heads may have different numbers of outputs, and narrower ones are filled up with zeros.
    """
    with ExitStack() as stack:
        for head in dict.fromkeys(head for name in names if name is not None for head in heads[name]):
            states = [None if name is None else heads[name].get(head) for name in names]
            stack.enter_context(_one_head_by_row(head, submodule(model, head), states, are_filled))
        yield


@contextmanager
def _one_head_by_row(
    name: str, head: nn.Module, states: Sequence[HeadState | None], are_filled: bool
) -> Iterator[None]:
    own = vars(head).get("forward")  # as accelerate sets one
    here = plain_state(head)  # whose dtype and device are that of the model by now
    cast = {id(state): {n: t.to(here[n]) for n, t in (state or {}).items()} for state in states}
    groups: dict[int, list[int]] = {}
    for row, state in enumerate(states):
        groups.setdefault(id(state), []).append(row)

    def by_row(*args: Any, **kwargs: Any) -> Tensor:
        _set_forward(head, own)
        try:
            if len(groups) == 1:
                return functional_call(head, cast[id(states[0])], args, kwargs)
            num_rows = _num_rows(name, (*args, *kwargs.values()), len(states))
            parts = []
            orders = []
            for key, rows in groups.items():
                copies = num_rows // len(states)
                order = torch.tensor([row * copies + copy for row in rows for copy in range(copies)])
                given = [_rows_of(value, order, num_rows) for value in args]
                named = {name: _rows_of(value, order, num_rows) for name, value in kwargs.items()}
                parts.append(functional_call(head, cast[key], tuple(given), named))
                orders.append(order)
            if not all(isinstance(part, Tensor) for part in parts):
                raise TypeError(f"The head `{name}` returns no tensor, and so can't be another one for each row.")
            if are_filled:
                parts = [widened(part, max(other.shape[-1] for other in parts)) for part in parts]
            return torch.cat(parts)[torch.cat(orders).argsort()]
        finally:
            _set_forward(head, by_row)

    _set_forward(head, by_row)
    try:
        yield
    finally:
        _set_forward(head, own)


def widened(rows: Tensor, width: int) -> Tensor:
    """Rows that are filled up with zeros to a width, which they may have.

    >>> widened(torch.ones(1, 2), 3)
    tensor([[1., 1., 0.]])
    """
    return F.pad(rows, (0, width - rows.shape[-1])) if rows.dim() > 1 else rows


def _set_forward(head: nn.Module, forward: Any) -> None:
    """Let a module have a `forward` of its own, or that of its class for ``None``."""
    if forward is None:
        vars(head).pop("forward", None)
    else:
        vars(head)["forward"] = forward


def _num_rows(name: str, values: Sequence[Any], num_named: int) -> int:
    """How many rows a head is called with, a multiple of those that are named."""
    num_rows = next((len(value) for value in values if isinstance(value, Tensor) and value.dim()), 0)
    if not num_rows or num_rows % num_named:
        raise ValueError(
            f"`{name}` was called with {num_rows} rows, but {num_named} are named: name an adapter, or None, for each "
            "row of the batch."
        )
    return num_rows


def _rows_of(value: Any, order: Tensor, num_rows: int) -> Any:
    has_rows = isinstance(value, Tensor) and value.dim() and len(value) == num_rows
    return value[order.to(value.device)] if has_rows else value
