"""Gradients that are looked at and not trained by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asym_lightning.core.dtensor import is_sharded


def gradients_by(value: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of a value by each parameter, None where it does not depend on it; their `.grad` stays as it was.

    Where parameters are sharded, gradients are means over processes, as FSDP2 has them, and every process has to call
    this. Then a value that depends on other parameters too adds to the `.grad` of those.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> gradients_by((3 * weight).sum(), [weight]), weight.grad
    ([tensor([3., 3.])], None)
    """
    if not any(is_sharded(parameter) for parameter in parameters):
        return list(torch.autograd.grad(value, parameters, allow_unused=True))
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        value.backward()  # FSDP2 gathers weights and sums gradients in a whole backward pass alone
        return [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
