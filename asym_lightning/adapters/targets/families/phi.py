"""Phi, Phi-3 and the language model of Phi-4 multimodal."""

from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import grouped_query

register_family(
    Family(
        {
            "q": ("self_attn.q_proj",),
            "k": ("self_attn.k_proj",),
            "v": ("self_attn.v_proj",),
            "o": ("self_attn.dense",),
            "mlp": ("mlp.fc1", "mlp.fc2"),
        },
        heads=("score",),
        model_types=("phi",),
    )
)
register_family(
    Family(
        {"o": ("self_attn.o_proj",), "mlp": ("mlp.gate_up_proj", "mlp.down_proj")},
        fused={"self_attn.qkv_proj": grouped_query},
        heads=("score",),
        model_types=("phi3", "phi4_multimodal"),
    )
)
