"""timm."""

from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import contiguous

register_family(
    Family(
        {
            **{role: (f"attn.{role}", f"attn.{role}_proj") for role in "qkv"},
            "o": ("attn.proj",),
            "mlp": ("mlp.fc1", "mlp.fc2", "mlp.fc1_g", "mlp.fc1_x", "mlp.w12", "mlp.w3"),
        },
        fused={"attn.qkv": contiguous("q", "k", "v"), "attn.kv": contiguous("k", "v")},
        heads=(),  # timm models name their own classifier
        packages=("timm.models",),
    )
)
