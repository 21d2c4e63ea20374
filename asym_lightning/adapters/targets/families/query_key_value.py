"""GPT-NeoX, BLOOM, Falcon and Persimmon, whose fused ``query_key_value`` has q, k and v head by head."""

from collections.abc import Mapping
from typing import Any

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import Family, Layout, register_family
from asym_lightning.adapters.targets.families.layouts import interleaved


def _falcon(d_out: int, config: Any) -> Mapping[str, Rows]:
    """Falcon: grouped (new architecture), one shared key and value (multi-query), or interleaved like BLOOM."""
    heads = config.num_attention_heads
    dim = config.hidden_size // heads
    if config.new_decoder_architecture:
        groups = config.num_kv_heads
        q = heads // groups * dim
        return {"q": Rows(0, q, groups), "k": Rows(q, dim, groups), "v": Rows(q + dim, dim, groups)}
    if config.multi_query:
        q = heads * dim
        return {"q": Rows(0, q), "k": Rows(q, dim), "v": Rows(q + dim, dim)}
    return interleaved("num_attention_heads")(d_out, config)


def _register(model_type: str, attention: str, layout: Layout) -> None:
    register_family(
        Family(
            {
                "o": ("attention.dense", "self_attention.dense", "self_attn.dense"),
                "mlp": ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
            },
            fused={f"{attention}.query_key_value": layout},
            heads=("score",),
            model_types=(model_type,),
        )
    )


_register("gpt_neox", "attention", interleaved("num_attention_heads"))
_register("gpt_neox_japanese", "attention", interleaved("num_attention_heads"))
_register("bloom", "self_attention", interleaved("n_head"))
_register("falcon", "self_attention", _falcon)
_register("persimmon", "self_attn", interleaved("num_attention_heads"))
