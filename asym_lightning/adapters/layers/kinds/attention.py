"""The adapted ``nn.MultiheadAttention``, the attention of torch's own transformer layers too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer, ReadParameter, own_parameter
from asym_lightning.adapters.layers.kinds.registry import register_kind
from asym_lightning.adapters.rows import Rows


@register_kind
class AdaptedMultiheadAttention(AdaptedLayer, nn.MultiheadAttention):
    """Attention whose one input projection, of q, k and v, gets a low-rank update; its ``out_proj`` is a layer apart.

    The host hands the weight to a function, so the function is handed ``W + s B A``.
    """

    host = nn.MultiheadAttention
    is_read = True
    calls_adapters = False
    parameter = "in_proj_weight"
    in_proj_weight: Any = ReadParameter()

    @classmethod
    def refusal(cls, layer: Any) -> str | None:
        """Keys and values of other widths than the queries, which have weights of their own."""
        if layer.in_proj_weight is None:
            return "has keys or values of another width than the queries, hence three weights, which are not adapted"
        return super().refusal(layer)

    @classmethod
    def slices_of(cls, layer: Any) -> Mapping[str, Rows]:
        """Queries, keys and values, one after another."""
        width = layer.embed_dim
        return {name: Rows(i * width, width) for i, name in enumerate("qkv")}

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(d_out, d_in), also where keys have another width."""
        return 3 * layer.embed_dim, layer.embed_dim

    def weight_matrix(self) -> Tensor:
        """(d_out, d_in): the weight itself."""
        return own_parameter(self, "in_proj_weight")

    def delta_weight(self) -> Tensor:
        """(d_out, d_in)."""
        return self.adapters.delta_weight(self.weight_matrix())
