"""The weights of several experts in one parameter, as host code sees them while they are adapted.

A mixture of experts keeps one projection of all its experts as an (experts, d_out, d_in) parameter, or with the last
two the other way round, and multiplies by one expert, by some, or by groups of tokens. Here each of these products gets
the low-rank update beside it, so that only routed tokens pay; any other use of the parameter gets ``W + s B A``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from asym_lightning.adapters.kernels.grouped import grouped_product
from asym_lightning.adapters.kernels.linear import adapted_linear
from asym_lightning.adapters.kernels.plan import Plan
from asym_lightning.adapters.layers.adapted import with_update
from asym_lightning.adapters.rows import Rows
from asym_lightning.core.private_names import grouped_mm, without_torch_function

_ATTRIBUTES = ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_meta", "requires_grad")
_METADATA = {
    *(getattr(Tensor, name).__get__ for name in _ATTRIBUTES), Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride,
    Tensor.is_contiguous, Tensor.is_floating_point, Tensor.element_size, Tensor.__len__,
}  # fmt: skip
_T, _MT = (getattr(Tensor, name).__get__ for name in ("T", "mT"))
_INTEGERS = (torch.int64, torch.int32)


class ExpertWeight(Tensor):
    """A view of the frozen parameter that multiplies as if the update were in it.

    Attributes:
        As: (rank, d_in), one that every expert reads, or one for each.
        Bs: (d_out, rank) for each expert.
        plan: Scaling and path; dropout is not drawn.
        is_transposed: The last two dimensions are (d_in, d_out).
        expert: The one expert that this is the matrix of, some experts in a tensor, or ``None`` for all.
    """

    As: Sequence[Tensor]
    Bs: Sequence[Tensor]
    plan: Plan
    is_transposed: bool
    expert: int | Tensor | None

    @classmethod
    def of(
        cls, weight: Tensor, As: Sequence[Tensor], Bs: Sequence[Tensor], plan: Plan, *, is_transposed: bool
    ) -> ExpertWeight:
        """The view of a whole parameter."""
        return cls._made(weight, As, Bs, plan, is_transposed, None)

    @classmethod
    def _made(
        cls,
        weight: Tensor,
        As: Sequence[Tensor],
        Bs: Sequence[Tensor],
        plan: Plan,
        is_transposed: bool,
        expert: int | Tensor | None,
    ) -> ExpertWeight:
        view = weight.detach().as_subclass(cls)
        view.As, view.Bs, view.plan, view.is_transposed, view.expert = As, Bs, plan, is_transposed, expert
        return view

    def formed(self) -> Tensor:
        """``W + s B A`` as an ordinary tensor, in this one's shape."""
        delta = self.plan.scalings[0] * (self.B() @ self.A())
        return with_update(self.plain(), delta.mT if self.is_transposed else delta)

    def plain(self) -> Tensor:
        """The frozen weight as an ordinary tensor."""
        with without_torch_function():
            return self.as_subclass(Tensor)

    def A(self) -> Tensor:
        """The factor that the experts read that this is of, (rank, d_in) or, where each has its own, one for each."""
        return self.As[0] if len(self.As) == 1 else self._of_these(self.As)

    def B(self) -> Tensor:
        """The factor of the experts that this is of, (d_out, rank) or (experts, d_out, rank)."""
        return self._of_these(self.Bs)

    def _of_these(self, factors: Sequence[Tensor]) -> Tensor:
        if isinstance(self.expert, int):
            return factors[self.expert]
        return torch.stack([*factors]) if self.expert is None else torch.stack([*factors])[self.expert]

    def flipped(self) -> ExpertWeight:
        """The last two dimensions exchanged."""
        return self._made(self.plain().mT, self.As, self.Bs, self.plan, not self.is_transposed, self.expert)

    def chosen(self, expert: int | Tensor) -> ExpertWeight:
        """One expert's matrix, or those of some."""
        expert = int(expert) if isinstance(expert, int) or expert.dim() == 0 else expert
        return self._made(self.plain()[expert], self.As, self.Bs, self.plan, self.is_transposed, expert)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Multiply with the update, or form it."""
        kwargs = kwargs or {}
        with without_torch_function():
            if func in _METADATA:
                return func(*args, **kwargs)
            product = _PRODUCTS.get(func) or _PRODUCTS.get(str(func))
            if product is not None and (result := product(func, *args, **kwargs)) is not None:
                return result
            return func(*_formed(args), **{name: _formed(value) for name, value in kwargs.items()})


def _formed(value: Any) -> Any:
    if isinstance(value, ExpertWeight):
        return value.formed()
    return type(value)(map(_formed, value)) if type(value) in (list, tuple) else value


def _get(func: Any, weight: Any, index: Any) -> Tensor | None:
    is_index = type(index) is int or (isinstance(index, Tensor) and index.dim() < 2 and index.dtype in _INTEGERS)
    return weight.chosen(index) if is_index and weight.expert is None else None


def _flip(func: Any, weight: Any, *dims: int) -> Tensor | None:
    if func == _T and weight.dim() != 2:
        return None
    last = {weight.dim() - 2, weight.dim() - 1}
    is_of_last = {dim % weight.dim() for dim in dims} == last if dims else True
    return weight.flipped() if is_of_last else None


def _linear(func: Any, x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor | None:
    """``x W^T + b`` of one expert."""
    is_one = isinstance(weight, ExpertWeight) and isinstance(weight.expert, int) and not weight.is_transposed
    return _one(x, weight, bias) if is_one else None


def _matmul(func: Any, x: Tensor, weight: Any) -> Tensor | None:
    """``x W^T`` of one expert, whose matrix is kept or was turned to (d_in, d_out)."""
    is_one = isinstance(weight, ExpertWeight) and isinstance(weight.expert, int) and weight.is_transposed
    return _one(x, weight.flipped(), None) if is_one and x.dim() > 1 else None


def _one(x: Tensor, weight: ExpertWeight, bias: Tensor | None) -> Tensor:
    return adapted_linear(x, weight.plain(), bias, [weight.A()], [weight.B()], weight.plan)


def _batched(func: Any, left: Any, right: Any) -> Tensor | None:
    """A matrix product for each row of the batch: by the experts of some tokens, or by all in turn."""
    if isinstance(right, ExpertWeight) and right.is_transposed and not isinstance(left, ExpertWeight):
        h = (left @ right.A().mT.to(left.dtype)) @ right.B().mT.to(left.dtype)
        return func(left, right.plain()).add(h, alpha=right.plan.scalings[0])
    if isinstance(left, ExpertWeight) and not left.is_transposed and not isinstance(right, ExpertWeight):
        h = left.B().to(right.dtype) @ (left.A().to(right.dtype) @ right)
        return func(left.plain(), right).add(h, alpha=left.plan.scalings[0])
    return None


def _grouped(func: Any, x: Tensor, weight: Any, offs: Tensor | None = None, **options: Any) -> Tensor | None:
    """Groups of tokens, each by its expert."""
    if not (isinstance(weight, ExpertWeight) and weight.is_transposed and weight.expert is None) or offs is None:
        return None
    if any(value is not None for value in options.values()):
        return None
    dtype = weight.dtype
    x = x.to(dtype)
    A, B = weight.A().to(dtype), weight.B().to(dtype)
    if x.device.type == "cpu":
        return grouped_product(func, x, weight.plain(), A, B, offs, weight.plan.scalings[0])
    # The kernels take rows of a whole number of 16 bytes.
    missing = -A.shape[-2] % (16 // dtype.itemsize)
    A, B = F.pad(A, (0, 0, 0, missing)), F.pad(B, (0, missing)).mT
    h = x @ A.mT if A.dim() == 2 else func(x, A.mT.contiguous(), offs=offs)
    # Autocast has a dtype of its own for h, and none for this product.
    update = func(h.to(dtype), B.contiguous(), offs=offs)
    return func(x, weight.plain(), offs=offs).add(update, alpha=weight.plan.scalings[0])


_PRODUCTS: dict[Any, Callable[..., Tensor | None]] = {
    Tensor.__getitem__: _get,
    Tensor.transpose: _flip,
    torch.transpose: _flip,
    _MT: _flip,
    _T: _flip,
    Tensor.t: _flip,
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.mm: _matmul,
    Tensor.__matmul__: _matmul,
    torch.bmm: _batched,
    Tensor.bmm: _batched,
    "transformers.grouped_mm_fallback": _grouped,
    grouped_mm: _grouped,
}


def whole_plan(scaling: float, d_out: int, path: str) -> Plan:
    """The plan of one slice that is the whole matrix, without dropout."""
    return Plan(rows=(Rows(0, d_out),), scalings=(scaling,), shares_a=False, dropout=0.0, path=path)
