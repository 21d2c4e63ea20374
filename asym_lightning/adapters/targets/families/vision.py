"""Vision towers of transformers: ViT and its like, CLIP and SigLIP, ConvNeXt, LeViT."""

from collections.abc import Mapping
from typing import Any

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import by_head


def _levit(d_out: int, config: Any) -> Mapping[str, Rows]:
    """Of all stages, where their heads are of one size."""
    sizes = {(key, ratio * key) for key, ratio in zip(config.key_dim, config.attention_ratio, strict=True)}
    return _heads(d_out, sizes, "qk")


def _levit_between_stages(d_out: int, config: Any) -> Mapping[str, Rows]:
    between = (operation for operation in config.down_ops if len(operation) > 1)  # there is none behind the last
    return _heads(d_out, {(key, ratio * key) for _, key, _, ratio, *_ in between}, "k")


def _heads(d_out: int, sizes: set[tuple[int, int]], narrow: str) -> Mapping[str, Rows]:
    if len(sizes) != 1:
        return {}
    ((key, value),) = sizes
    heads, rest = divmod(d_out, len(narrow) * key + value)
    return {} if rest else by_head(heads, **dict.fromkeys(narrow, key), v=value)


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
register_family(
    Family(
        {"q": ("queries.linear",), "o": ("projection.linear",), "mlp": ("linear_up.linear", "linear_down.linear")},
        fused={"queries_keys_values.linear": _levit, "keys_values.linear": _levit_between_stages},
        heads=("classifier", "classifier_distill"),
        model_types=("levit",),
    )
)
