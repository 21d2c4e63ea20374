"""GPT, GPT-2, ImageGPT, decision transformers, GPT-Neo, GPT-J, GPT-BigCode and CodeGen."""

from collections.abc import Mapping
from typing import Any

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import by_head, contiguous, in_order


def _bigcode(d_out: int, config: Any) -> Mapping[str, Rows]:
    """One key and value for all heads, or three for each."""
    dim = config.n_embd // config.n_head
    return (
        in_order(q=config.n_embd, k=dim, v=dim) if config.multi_query else by_head(config.n_head, q=dim, k=dim, v=dim)
    )


def _codegen(d_out: int, config: Any) -> Mapping[str, Rows]:
    """Laid out for four cores of a TPU."""
    size = d_out // 12
    return by_head(4, q=size, v=size, k=size)


register_family(
    Family(
        {"o": ("attn.c_proj",), "mlp": ("mlp.c_fc", "mlp.c_proj")},
        fused={"attn.c_attn": contiguous("q", "k", "v")},
        heads=("score",),
        model_types=("openai-gpt", "gpt2", "imagegpt", "decision_transformer"),
    )
)
register_family(
    Family(
        {
            "q": ("attn.attention.q_proj",),
            "k": ("attn.attention.k_proj",),
            "v": ("attn.attention.v_proj",),
            "o": ("attn.attention.out_proj",),
            "mlp": ("mlp.c_fc", "mlp.c_proj"),
        },
        heads=("score",),
        model_types=("gpt_neo",),
    )
)
register_family(
    Family(
        {
            "q": ("attn.q_proj",),
            "k": ("attn.k_proj",),
            "v": ("attn.v_proj",),
            "o": ("attn.out_proj",),
            "mlp": ("mlp.fc_in", "mlp.fc_out"),
        },
        heads=("score",),
        model_types=("gptj",),
    )
)
register_family(
    Family(
        {"o": ("attn.c_proj",), "mlp": ("mlp.c_fc", "mlp.c_proj")},
        fused={"attn.c_attn": _bigcode},
        heads=("score", "classifier"),
        model_types=("gpt_bigcode",),
    )
)
register_family(
    Family(
        {"o": ("attn.out_proj",), "mlp": ("mlp.fc_in", "mlp.fc_out")},
        fused={"attn.qkv_proj": _codegen},
        heads=("score",),
        model_types=("codegen",),
    )
)
