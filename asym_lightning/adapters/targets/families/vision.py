"""Vision towers of transformers: ViT and its like, CLIP and SigLIP, ConvNeXt."""

from asym_lightning.adapters.targets.families.family import Family, register_family

# transformers 5 renamed the vision towers' layers; both names count.
register_family(
    Family(
        {
            **{
                role: (f"attention.{role}_proj", f"attention.attention.{name}", f"attention.self.{name}")
                for role, name in {"q": "query", "k": "key", "v": "value"}.items()
            },
            "o": ("attention.o_proj", "attention.output.dense"),
            "mlp": ("mlp.fc1", "mlp.fc2", "intermediate.dense", "layer.*.output.dense"),
        },
        model_types=("vit", "deit", "beit", "dinov2", "swin", "swinv2"),
    )
)
register_family(
    Family(
        {
            "q": ("self_attn.q_proj",),
            "k": ("self_attn.k_proj",),
            "v": ("self_attn.v_proj",),
            "o": ("self_attn.out_proj",),
            "mlp": ("mlp.fc1", "mlp.fc2"),
        },
        model_types=("clip", "clip_vision_model", "clip_text_model", "siglip"),
    )
)
register_family(Family({"mlp": ("pwconv1", "pwconv2")}, model_types=("convnext", "convnextv2")))
