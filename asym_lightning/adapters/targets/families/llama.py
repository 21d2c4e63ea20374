"""Llama and the decoders that name their layers as it does: Mistral, Qwen, Gemma, OLMo, SmolLM."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(
    Family(
        {
            "q": ("self_attn.q_proj",),
            "k": ("self_attn.k_proj",),
            "v": ("self_attn.v_proj",),
            "o": ("self_attn.o_proj",),
            "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        },
        heads=("score",),
        model_types=(
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "gemma2",
            "gemma3",
            "gemma3_text",
            "olmo",
            "olmo2",
            "smollm3",
            "mixtral",
        ),
    )
)
