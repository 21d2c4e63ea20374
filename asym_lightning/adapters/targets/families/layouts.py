"""How the slices of a fused projection lie in its rows."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import Layout


def in_order(**sizes: int) -> dict[str, Rows]:
    """Blocks of rows, one after another.

    >>> in_order(q=4, k=2)
    {'q': Rows(start=0, size=4, groups=1), 'k': Rows(start=4, size=2, groups=1)}
    """
    return by_head(1, **sizes)


def by_head(num_heads: int, **sizes: int) -> dict[str, Rows]:
    """For each head, blocks of rows one after another.

    >>> by_head(3, k=4, v=2)
    {'k': Rows(start=0, size=4, groups=3), 'v': Rows(start=4, size=2, groups=3)}
    """
    starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    return {name: Rows(starts[name], size, num_heads) for name, size in sizes.items()}


def contiguous(*names: str) -> Layout:
    """Equal blocks of rows, one after another: timm's ``qkv``, GPT-2's ``c_attn``.

    >>> contiguous("k", "v")(8, None)
    {'k': Rows(start=0, size=4, groups=1), 'v': Rows(start=4, size=4, groups=1)}
    """

    def layout(d_out: int, config: Any) -> dict[str, Rows]:
        size = d_out // len(names)
        return {name: Rows(i * size, size) for i, name in enumerate(names)}

    return layout


def interleaved(num_heads: str) -> Layout:
    """Per head q, k, v: GPT-NeoX, BLOOM, DeBERTa v1. ``num_heads`` names the config's field."""

    def layout(d_out: int, config: Any) -> dict[str, Rows]:
        heads = getattr(config, num_heads)
        size = d_out // (3 * heads)
        return {name: Rows(i * size, size, groups=heads) for i, name in enumerate("qkv")}

    return layout


def grouped_query(d_out: int, config: Any) -> dict[str, Rows]:
    """All of q, then the narrower k and v: Phi-3."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    return {"q": Rows(0, q), "k": Rows(q, kv), "v": Rows(q + kv, kv)}
