"""The adapted ``nn.Embedding``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters.layers.adapted import AdaptedLayer, own_parameter
from asym_lightning.adapters.layers.kinds.registry import register_kind

# transformers' classes of this name multiply what they look up by their `embed_scale`, and do nothing else.
_SCALED = "ScaledWordEmbedding"


@register_kind
class AdaptedEmbedding(AdaptedLayer, nn.Embedding):
    """A table of ``num_embeddings`` rows, whose transpose ``W`` (width, num_embeddings) gets a low-rank update.

    So a column of A is what one index is known by, and a lookup costs ``rank`` numbers of A and a product by B.
    Dropout is not drawn for it: there is no input to drop.
    """

    host = nn.Embedding
    is_linear = False
    plays_roles = False
    calls_adapters = False
    peft_names = ("lora_embedding_A", "lora_embedding_B")

    @classmethod
    def adapts(cls, layer: nn.Module) -> bool:
        """The class itself, and those that scale what it gives."""
        is_scaled = type(layer).__name__.endswith(_SCALED) and hasattr(layer, "embed_scale")
        return super().adapts(layer) or is_scaled

    @classmethod
    def refusal(cls, layer: Any) -> str | None:
        """A table that is written to as it is read, or whose gradient is not that of its rows."""
        if layer.max_norm is not None or layer.scale_grad_by_freq:
            option = "scale_grad_by_freq" if layer.max_norm is None else "max_norm"
            return f"has `{option}`, with which it is no table of frozen rows"
        return super().refusal(layer)

    @classmethod
    def shape_of(cls, layer: Any) -> tuple[int, int]:
        """(width, num_embeddings)."""
        return layer.embedding_dim, layer.num_embeddings

    @property
    def shows_tokens(self) -> bool:
        """No: it is called with indices."""
        return False

    def weight_matrix(self) -> Tensor:
        """(width, num_embeddings) view of the table."""
        return own_parameter(self).T

    def delta_weight(self) -> Tensor:
        """(num_embeddings, width)."""
        return self.adapters.delta_weight(self.weight_matrix()).T

    def forward(self, input: Tensor) -> Tensor:
        """Indices (...) to rows (..., width)."""
        rows = F.embedding(input, own_parameter(self))
        A, B = self.adapters.joined(self.embedding_dim)
        update = F.embedding(input, A.T).to(rows.dtype) @ B.T.to(rows.dtype)
        if self.padding_idx is not None:  # the row of padding is not trained
            update = update.where((input != self.padding_idx).unsqueeze(-1), update.detach())
        scale: Any = getattr(self, "embed_scale", 1)
        return (rows + update) * (scale.to(rows.dtype) if isinstance(scale, Tensor) else scale)
