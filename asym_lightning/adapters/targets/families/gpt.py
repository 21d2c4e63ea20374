"""GPT-2, GPT-Neo and GPT-J."""

from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import contiguous

register_family(
    Family(
        {"o": ("attn.c_proj",), "mlp": ("mlp.c_fc", "mlp.c_proj")},
        fused={"attn.c_attn": contiguous("q", "k", "v")},
        heads=("score",),
        model_types=("gpt2",),
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
