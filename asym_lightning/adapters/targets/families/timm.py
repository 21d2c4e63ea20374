"""timm, whose attention modules take a fused projection apart each in its own way.

Each class is named here with its way, which a test shows by its effect; of a class that is not, the slices are not
known, and no role is looked for in its fused projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asym_lightning.adapters.rows import Rows
from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import by_head, in_order

# Of these q, k and v (or those two of them that are fused) are equal blocks of rows, one after another.
_IN_ORDER = (
    "layers.attention.Attention", "layers.attention.AttentionRope", "layers.attention_pool.AttentionPoolLatent",
    "layers.attention_pool2d.AttentionPool2d", "layers.attention_pool2d.RotAttentionPool2d",
    "layers.diff_attention.DiffAttention", "models.beit.Attention", "models.cait.TalkingHeadAttn",
    "models.coat.FactorAttnConvRelPosEnc", "models.convit.GPSA", "models.convit.MHSA",
    "models.davit.ChannelAttentionV2", "models.davit.WindowAttention", "models.edgenext.CrossCovarianceAttn",
    "models.eva.EvaAttention", "models.fastvit.Attention", "models.gcvit.WindowAttentionGlobal",
    "models.hiera.MaskUnitAttention", "models.hieradet_sam2.MultiScaleAttention", "models.metaformer.Attention",
    "models.mvitv2.MultiScaleAttention", "models.nest.Attention", "models.pvt_v2.Attention",
    "models.swin_transformer.WindowAttention", "models.swin_transformer_v2.WindowAttention",
    "models.swin_transformer_v2_cr.WindowMultiHeadAttention", "models.tnt.Attention",
    "models.twins.GlobalSubSampleAttn", "models.twins.LocallyGroupedAttn",
    "models.vision_transformer_relpos.RelPosAttention",
    "models.vision_transformer_sam.Attention", "models.visformer.Attention", "models.volo.Attention",
    "models.volo.ClassAttention", "models.xcit.XCA",
)  # fmt: skip
_HEAD_FIRST_OR_NOT = ("layers.attention2d.Attention2d", "models.maxxvit.Attention2d", "models.maxxvit.AttentionCl")
_BY_HEAD = ("models.efficientformer.Attention", "models.levit.Attention", "models.levit.AttentionDownsample",
            "models.tiny_vit.Attention")  # fmt: skip
_BY_HEAD_ALIKE = ("models.cpubone.ConvAttention", "models.lowformer.ConvAttention")


def _fused(*names: str) -> Any:
    """The layout of a projection in which ``names`` are fused, by the module that it lies in."""

    def layout(d_out: int, attention: Any) -> Mapping[str, Rows]:
        kind = f"{type(attention).__module__}.{type(attention).__qualname__}".removeprefix("timm.")
        heads = getattr(attention, "num_heads", 1)
        if kind == "models.gcvit.WindowAttentionGlobal" and attention.use_global:
            return in_order(k=d_out // 2, v=d_out // 2)  # the queries are given
        if kind == "models.davit.ChannelAttention":  # what it calls q is what its scores weigh
            return in_order(v=d_out // 3, q=d_out // 3, k=d_out // 3)
        if kind in _IN_ORDER:
            return in_order(**dict.fromkeys(names, d_out // len(names)))
        if kind in _HEAD_FIRST_OR_NOT:
            sizes = dict.fromkeys(names, attention.dim_head)
            return by_head(heads, **sizes) if attention.head_first else in_order(**dict.fromkeys(names, d_out // 3))
        if kind in _BY_HEAD:
            sizes = {"q": attention.key_dim, "k": attention.key_dim, "v": attention.val_dim}
            return by_head(heads, **{name: sizes[name] for name in names})
        if kind in _BY_HEAD_ALIKE:
            return by_head(heads, **dict.fromkeys(names, attention.head_dim))
        if kind == "models.efficientvit_msra.CascadedGroupAttention":  # a projection a head
            return in_order(q=attention.key_dim, k=attention.key_dim, v=attention.val_dim)
        if kind == "models.efficientvit_mit.LiteMLA":
            return by_head(d_out // (3 * attention.dim), **dict.fromkeys(names, attention.dim))
        if kind == "models.shvit.SHSA":
            return in_order(q=attention.qk_dim, k=attention.qk_dim, v=attention.pdim)
        if kind == "layers.bottleneck_attn.BottleneckAttn":
            return in_order(q=attention.dim_out_qk, k=attention.dim_out_qk, v=attention.dim_out_v)
        if kind == "layers.halo_attn.HaloAttn":
            return by_head(heads, k=attention.dim_head_qk, v=attention.dim_head_v)
        if kind == "layers.lambda_layer.LambdaLayer":
            return in_order(q=heads * attention.dim_qk, k=attention.dim_qk, v=attention.dim_v)
        return {}

    return layout


def _value_and_gate(d_out: int, attention: Any) -> Mapping[str, Rows]:
    """Of a modulation (iFormer): values, and what their sum is multiplied by."""
    return in_order(v=d_out // 2, gate=d_out // 2) if type(attention).__name__ == "SHMA" else {}


def _in_split(d_out: int, block: Any) -> Mapping[str, Rows]:
    """A parallel block, whose one input projection is of the MLP too."""
    sizes = getattr(block, "in_split", ())
    return in_order(**dict(zip(("mlp", "q", "k", "v"), sizes, strict=True))) if len(sizes) == 4 else {}


# A projection is a layer of its own, or one with a normalisation behind it.
_WITH_NORM = ("", ".c", ".conv", ".linear")

register_family(
    Family(
        # The rest is derived from what layers and the modules around them are called.
        {
            "o": ("attn.proj",),
            "mlp": ("mlp.fc1", "mlp.fc2", "mlp.fc1_g", "mlp.fc1_x", "mlp.w12", "mlp.w3"),
        },
        fused={
            **{f"qkv{norm}": _fused("q", "k", "v") for norm in _WITH_NORM},
            **{f"qkvs.*{norm}": _fused("q", "k", "v") for norm in _WITH_NORM},
            **{f"kv{norm}": _fused("k", "v") for norm in _WITH_NORM},
            "pwise": _fused("q", "k", "v"),
            "qk": _fused("q", "k"),
            **{f"v_gate{norm}": _value_and_gate for norm in _WITH_NORM},
            "in_proj": _in_split,
        },
        heads=(),  # timm models name their own classifier
        packages=("timm.models", "timm.layers"),
    )
)
