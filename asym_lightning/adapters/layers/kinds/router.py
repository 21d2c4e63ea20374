"""The adapted weight of a router that a mixture keeps as a matrix and not as a layer."""

from __future__ import annotations

import re

from torch import Tensor, nn

from asym_lightning.adapters.layers.held_parameter import AdaptedHeldParameter, HeldParameter
from asym_lightning.adapters.layers.kinds.registry import register_kind

_NAME = re.compile(r"Router(?![a-z])")


class RouterMatrix(HeldParameter):
    """A parameter of two dimensions of a module whose class is called a router."""


@register_kind
class AdaptedRouterMatrix(AdaptedHeldParameter, RouterMatrix):
    """``W + s B A`` for each forward pass of the router: a row an expert, so that there is little to form.

    It has to be named. `peft` adapts it where it adapts the dense layers of a mixture, and its files hold it.
    """

    host = RouterMatrix
    is_linear = False
    plays_roles = False
    what = "a router"

    @classmethod
    def parts_of(cls, module: nn.Module) -> dict[str, nn.Module]:
        """Its matrices; of a layer there are none, though it be called so."""
        if not _NAME.search(type(module).__name__) or isinstance(module, (nn.Linear, nn.Embedding)):
            return {}
        return {n: RouterMatrix(module, n) for n, p in module._parameters.items() if p is not None and p.dim() == 2}

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in): the parameter."""
        return self.whole

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(self.whole)
