"""Whether the rows that a role names are the rows that attention reads as that role.

The rows are set to zero, and the queries, keys and values of every attention in the model are looked at while it runs:
those of the role must then be the same for every example, those of the other roles must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from asym_lightning.adapters.layers.kinds.registry import layers_of
from asym_lightning.adapters.rows import Rows
from benchmarks.coverage.subject import outputs

_PRODUCTS = {
    torch.matmul, torch.bmm, torch.einsum, torch.functional.einsum, torch.baddbmm,
    Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm,
}  # fmt: skip
_SOFTMAXES = {F.softmax, torch.softmax, Tensor.softmax}


class AttentionCall(NamedTuple):
    """Queries, keys and values of one attention, ``None`` where they could not be followed."""

    module: str
    q: Tensor | None
    k: Tensor | None
    v: Tensor | None


@dataclass
class Killed:
    """What became of a role when its rows were zero.

    Attributes:
        share: Share of the attention calls in which it is gone; 1 where there are none.
        missed: Modules in which it is not, though they hold layers.
        mixed: Those of them in which it has changed, as where it is mixed with another role.
        wrong: A module in which another role is gone or this one is gone in part.
    """

    share: float
    missed: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    wrong: str = ""


def killed_attention(
    model: nn.Module,
    calls: Any,
    role: str,
    rows: Mapping[tuple[str, str], Mapping[str, Rows]],
    *,
    at_once: bool = False,
) -> Killed:
    """Zero the rows of ``role`` and look at what attention reads.

    All at once first. Where that is not as it should be, one layer at a time, and only at the first attention that it
    changes: what comes after may have lost its input with it.

    Args:
        model: The model; its weights are as before afterwards.
        calls: Its calls.
        role: ``q``, ``k`` or ``v``.
        rows: Rows by slice of each parameter that plays the role, by module and name.
        at_once: Leave it at that, as with rows of several roles.
    """
    before = traced_attention(model, calls)
    with _zeroed(model, rows):
        found = _compare(model, role, list(zip(before, traced_attention(model, calls), strict=True)))
    if at_once or (found.share == 1 and not found.wrong):
        return found
    pairs: dict[int, tuple[AttentionCall, AttentionCall]] = {i: (call, call) for i, call in enumerate(before)}
    for key, slices in rows.items():
        with _zeroed(model, {key: slices}):
            after = traced_attention(model, calls)
        module = next((b.module for b, a in zip(before, after, strict=True) if _differs(b, a)), None)
        changed = [(i, b, a) for i, (b, a) in enumerate(zip(before, after, strict=True)) if b.module == module]
        if module is None or (not _is_near(key[0], module) and all(_is_gone(b, a) for _, b, a in changed)):
            continue  # nothing, or its input, of which q, k and v are made alike
        for i, b, a in changed:
            if _differs(b, a):
                pairs[i] = b, _the_more_dead(pairs[i][1], a, role)
    return _compare(model, role, list(pairs.values()))


@contextmanager
def _zeroed(model: nn.Module, rows: Mapping[tuple[str, str], Mapping[str, Rows]]) -> Iterator[None]:
    kept = []
    with torch.no_grad():
        for (name, parameter), slices in rows.items():
            layer = model.get_submodule(name)
            weight = getattr(layer, parameter)
            dim = 1 if type(layer).__name__ == "Conv1D" else 0
            # The bias too: what is left of one example alone is then zero.
            for tensor, own_dim in ((weight, dim), (getattr(layer, "bias", None), 0)):
                if isinstance(tensor, Tensor) and tensor.shape[own_dim] == weight.shape[dim]:
                    kept.append((tensor, tensor.clone()))
                    for slice_rows in slices.values():
                        index = slice_rows.take(torch.arange(tensor.shape[own_dim]))
                        tensor.index_fill_(own_dim, index, 0.0)
    yield
    with torch.no_grad():
        for weight, was in kept:
            weight.copy_(was)


def _differs(before: AttentionCall, after: AttentionCall) -> bool:
    pairs = [(getattr(before, role), getattr(after, role)) for role in "qkv"]
    return any(x is not None and (x.shape != y.shape or not torch.equal(x, y)) for x, y in pairs)


def _is_near(layer: str, attention: str) -> bool:
    """Whether a layer lies in the block that an attention lies in."""
    return layer.startswith(attention.rpartition(".")[0])


def _is_gone(before: AttentionCall, after: AttentionCall) -> bool:
    """Whether nothing of it differs between examples any more."""
    return not any(x is not None and y is not None and _depends(x) and _depends(y) for x, y in
                   ((getattr(before, role), getattr(after, role)) for role in "qkv"))  # fmt: skip


def _the_more_dead(one: AttentionCall, other: AttentionCall, role: str) -> AttentionCall:
    return one if getattr(one, role) is not None and not _depends(getattr(one, role)) else other


def _compare(model: nn.Module, role: str, pairs: list[tuple[AttentionCall, AttentionCall]]) -> Killed:
    pairs = [(b, a) for b, a in pairs if getattr(b, role) is not None and _depends(getattr(b, role))]
    pairs = [(b, a) for b, a in pairs if _projects(model, b.module)]
    dead = [not _depends(getattr(a, role)) for _, a in pairs]
    if not pairs:
        return Killed(1.0)
    left = [(b, a) for is_dead, (b, a) in zip(dead, pairs, strict=True) if not is_dead]
    missed = tuple(dict.fromkeys(a.module for _, a in left))
    mixed = tuple(dict.fromkeys(a.module for b, a in left if not torch.equal(getattr(b, role), getattr(a, role))))
    wrong = ""
    for is_dead, (b, a) in zip(dead, pairs, strict=True):
        for other in "qkv":
            x, y = getattr(b, other), getattr(a, other)
            if x is None or y is None:
                continue
            if other != role and _depends(x) and not _depends(y) and _depends_without(b, role, other):
                wrong = f"{other} is gone too in {a.module}"
            if other == role and not is_dead and x.shape == y.shape and _lost(x, y):
                wrong = f"{role} is gone in part in {a.module}"
    return Killed(sum(dead) / len(dead), missed, mixed, wrong)


def _projects(model: nn.Module, name: str) -> bool:
    """Whether what attends holds any layer: some attend to their inputs as they are."""
    parts = name.split(".")
    paths = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
    holder = next(m for m in map(model.get_submodule, paths) if any(True for _ in m.parameters()))
    return bool(layers_of(holder))


def traced_attention(model: nn.Module, calls: Any) -> list[AttentionCall]:
    """Every attention of the calls, in their order."""
    tracer = _Tracer()
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda m, a, name=name: tracer.stack.append(name)))
        hooks.append(module.register_forward_hook(lambda m, a, o: tracer.stack.pop() and None))
    try:
        with torch.no_grad(), tracer:
            outputs(model.eval(), calls)
    finally:
        for hook in hooks:
            hook.remove()
    return tracer.found


@dataclass
class _Scores:
    q: Tensor
    k: Tensor


class _Tracer(TorchFunctionMode):
    """Follows scores from the product of q and k through the softmax to the product with v."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = [""]
        self.found: list[AttentionCall] = []
        self._scores: dict[int, tuple[Tensor, _Scores]] = {}
        self._weights: dict[int, tuple[Tensor, _Scores | None]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            self._add(given["query"], given["key"], given["value"])
        elif func is F.multi_head_attention_forward:
            self._add(*_projections(args, kwargs))
        out = func(*args, **kwargs)
        if func is Tensor.__setitem__:  # scores that are put together from windows
            self._follow(args[2:], args[0])
        if not isinstance(out, Tensor):
            return out
        given = [a for arg in (*args, *kwargs.values()) for a in (arg if isinstance(arg, (list, tuple)) else [arg])]
        tensors = [a for a in given if isinstance(a, Tensor)]
        if func in _PRODUCTS and len(tensors) >= 2:
            left, right = tensors[-2:]
            weights = next((self._weights[id(t)] for t in (left, right) if id(t) in self._weights), None)
            if weights is not None:
                v = right if id(left) in self._weights else left
                scores = weights[1]
                self._add(scores and scores.q, scores and scores.k, v)
            elif left.dim() >= 3 and right.dim() >= 3:
                self._scores[id(out)] = (out, _Scores(left, right))
        elif func in _SOFTMAXES and out.dim() >= 3:
            source = next((self._scores[id(t)][1] for t in tensors if id(t) in self._scores), None)
            if source is not None:
                self._weights[id(out)] = (out, source)
        else:
            self._follow(tensors[:2], out)
        return out

    def _follow(self, sources: Sequence[Any], out: Tensor) -> None:
        """Let scores or weights that became another tensor be known in it."""
        for known in (self._scores, self._weights):
            source = next((known[id(t)][1] for t in sources if id(t) in known), None)
            if source is not None and out.dim() >= 3:
                known[id(out)] = (out, source)

    def _add(self, q: Tensor | None, k: Tensor | None, v: Tensor | None) -> None:
        copies = [None if tensor is None else tensor.detach().clone() for tensor in (q, k, v)]
        self.found.append(AttentionCall(self.stack[-1], *copies))


def _projections(args: Any, kwargs: Any) -> list[Tensor]:
    import inspect

    bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    bound.apply_defaults()
    a = bound.arguments
    if a["use_separate_proj_weight"]:
        weights = [a["q_proj_weight"], a["k_proj_weight"], a["v_proj_weight"]]
    else:
        weights = list(a["in_proj_weight"].chunk(3))
    biases = [None] * 3 if a["in_proj_bias"] is None else list(a["in_proj_bias"].chunk(3))
    # (length, batch, width): the batch first, as everywhere else.
    inputs = [a["query"], a["key"], a["value"]]
    return [F.linear(x, w, b).transpose(0, 1) for x, w, b in zip(inputs, weights, biases, strict=True)]


def _depends(x: Tensor) -> bool:
    """Whether it differs between the examples of the batch, the two halves of the first dimension."""
    if x.shape[0] < 2 or x.shape[0] % 2:
        return bool(x.abs().max() > 1e-6)
    left, right = x.chunk(2)
    return bool((left - right).abs().max() > 1e-5 * x.abs().max().clamp_min(1e-6))


def _lost(before: Tensor, after: Tensor) -> bool:
    """Whether a whole channel of the last dimension, of one head, became the same for all examples."""

    def varying(x: Tensor) -> Tensor:
        left, right = x.chunk(2) if x.shape[0] % 2 == 0 else (x, torch.zeros_like(x))
        return (left - right).abs().amax(tuple(i for i in range(x.dim()) if i not in (1, x.dim() - 1))) > 1e-6

    return bool((varying(before) & ~varying(after)).any())


def _depends_without(call: AttentionCall, role: str, other: str) -> bool:
    """Whether two roles are different tensors: some models read one projection as both."""
    x, y = getattr(call, role), getattr(call, other)
    return x is None or y is None or x.shape != y.shape or not torch.equal(x, y)
