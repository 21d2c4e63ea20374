"""Which layers play the roles q, k, v, o and mlp in each family of models, and how fused projections are laid out.

One table, read by :mod:`asym_lightning.adapters.targets.find`. Names are dotted suffixes of module names; the families
are recognised by transformers' ``config.model_type`` or, for timm and torchvision, by the package that a class comes
from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from asym_lightning.adapters.rows import Rows

ROLES = ("q", "k", "v", "o", "mlp")
Layout = Callable[[int, Any], dict[str, Rows]]
"""Takes d_out of a fused layer and the model's config, gives the rows of its slices."""


@dataclass(frozen=True)
class Family:
    """Names of one family.

    Args:
        roles: Dotted suffixes of whole layers, by role.
        fused: Layouts of fused projections, by dotted suffix.
        heads: Dotted suffixes of modules that are new for a task and are trained in full.
    """

    roles: Mapping[str, tuple[str, ...]]
    fused: Mapping[str, Layout] = field(default_factory=dict)
    heads: tuple[str, ...] = ("classifier",)


# --- layouts of fused projections ---------------------------------------------------------------------------------


def _contiguous(*names: str) -> Layout:
    """Equal blocks of rows, one after another: timm ``qkv``, GPT-2 ``c_attn``."""

    def layout(d_out: int, config: Any) -> dict[str, Rows]:
        size = d_out // len(names)
        return {name: Rows(i * size, size) for i, name in enumerate(names)}

    return layout


def _interleaved(num_heads: str) -> Layout:
    """Per head q, k, v: GPT-NeoX, BLOOM, DeBERTa v1. ``num_heads`` names the config's field."""

    def layout(d_out: int, config: Any) -> dict[str, Rows]:
        heads = getattr(config, num_heads)
        size = d_out // (3 * heads)
        return {name: Rows(i * size, size, groups=heads) for i, name in enumerate("qkv")}

    return layout


def _grouped_query(d_out: int, config: Any) -> dict[str, Rows]:
    """Phi-3: all of q, then the narrower k and v."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    return {"q": Rows(0, q), "k": Rows(q, kv), "v": Rows(q + kv, kv)}


def _falcon(d_out: int, config: Any) -> dict[str, Rows]:
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
    return _interleaved("num_attention_heads")(d_out, config)


# --- the table ----------------------------------------------------------------------------------------------------


def _roles(
    prefix: str, q: str, k: str, v: str, *, o: tuple[str, ...], mlp: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    return {"q": (prefix + q,), "k": (prefix + k,), "v": (prefix + v,), "o": o, "mlp": mlp}


_BERT_OUT = {"o": ("attention.output.dense",), "mlp": ("intermediate.dense", "layer.*.output.dense")}
_BERT = Family(_roles("attention.self.", "query", "key", "value", **_BERT_OUT))
_ALBERT = Family(_roles("attention.", "query", "key", "value", o=("attention.dense",), mlp=("ffn", "ffn_output")))
_DISTILBERT = Family(
    _roles("attention.", "q_lin", "k_lin", "v_lin", o=("attention.out_lin",), mlp=("ffn.lin1", "ffn.lin2")),
    heads=("pre_classifier", "classifier", "qa_outputs"),
)
_DEBERTA_V1 = Family(
    {"o": _BERT_OUT["o"], "mlp": _BERT_OUT["mlp"]},
    fused={"attention.self.in_proj": _interleaved("num_attention_heads")},
    heads=("pooler", "classifier"),
)
_DEBERTA = Family(
    _roles("attention.self.", "query_proj", "key_proj", "value_proj", **_BERT_OUT), heads=("pooler", "classifier")
)
_BART = Family(
    _roles("*attn.", "q_proj", "k_proj", "v_proj", o=("*attn.out_proj",), mlp=("fc1", "fc2")),
    heads=("classification_head", "qa_outputs", "score", "projector", "classifier"),
)
_T5 = Family(
    {
        **{r: (f"SelfAttention.{r}", f"EncDecAttention.{r}") for r in "qkvo"},
        "mlp": tuple(f"DenseReluDense.{n}" for n in ("wi", "wi_0", "wi_1", "wo")),
    },
    heads=("classification_head", "qa_outputs"),
)
_LLAMA = Family(
    _roles(
        "self_attn.",
        "q_proj",
        "k_proj",
        "v_proj",
        o=("self_attn.o_proj",),
        mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ),
    heads=("score",),
)
_PHI3 = Family(
    {"o": ("self_attn.o_proj",), "mlp": ("mlp.gate_up_proj", "mlp.down_proj")},
    fused={"self_attn.qkv_proj": _grouped_query},
    heads=("score",),
)
_PHI = Family(
    _roles("self_attn.", "q_proj", "k_proj", "v_proj", o=("self_attn.dense",), mlp=("mlp.fc1", "mlp.fc2")),
    heads=("score",),
)
_GPT2 = Family(
    {"o": ("attn.c_proj",), "mlp": ("mlp.c_fc", "mlp.c_proj")},
    fused={"attn.c_attn": _contiguous("q", "k", "v")},
    heads=("score",),
)
_GPT_NEO = Family(
    _roles(
        "attn.attention.", "q_proj", "k_proj", "v_proj", o=("attn.attention.out_proj",), mlp=("mlp.c_fc", "mlp.c_proj")
    ),
    heads=("score",),
)
_GPT_J = Family(
    _roles("attn.", "q_proj", "k_proj", "v_proj", o=("attn.out_proj",), mlp=("mlp.fc_in", "mlp.fc_out")),
    heads=("score",),
)
_DENSE_4H = {"o": ("attention.dense", "self_attention.dense"), "mlp": ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")}
_GPT_NEOX = Family(
    _DENSE_4H, fused={"attention.query_key_value": _interleaved("num_attention_heads")}, heads=("score",)
)
_BLOOM = Family(_DENSE_4H, fused={"self_attention.query_key_value": _interleaved("n_head")}, heads=("score",))
_FALCON = Family(_DENSE_4H, fused={"self_attention.query_key_value": _falcon}, heads=("score",))
# transformers 5 renamed the vision towers' layers; both names count.
_HF_VIT = Family(
    {
        **{
            r: (f"attention.{r}_proj", f"attention.attention.{n}", f"attention.self.{n}")
            for r, n in {"q": "query", "k": "key", "v": "value"}.items()
        },
        "o": ("attention.o_proj", "attention.output.dense"),
        "mlp": ("mlp.fc1", "mlp.fc2", "intermediate.dense", "layer.*.output.dense"),
    }
)
_CLIP = Family(
    _roles("self_attn.", "q_proj", "k_proj", "v_proj", o=("self_attn.out_proj",), mlp=("mlp.fc1", "mlp.fc2"))
)
_WAV2VEC2 = Family(
    _roles(
        "attention.",
        "q_proj",
        "k_proj",
        "v_proj",
        o=("attention.out_proj",),
        mlp=("feed_forward.intermediate_dense", "feed_forward.output_dense"),
    ),
    heads=("projector", "classifier"),
)
_CONVNEXT_HF = Family({"mlp": ("pwconv1", "pwconv2")})
_TIMM = Family(
    {
        **{r: (f"attn.{r}", f"attn.{r}_proj") for r in "qkv"},
        "o": ("attn.proj",),
        "mlp": ("mlp.fc1", "mlp.fc2", "mlp.fc1_g", "mlp.fc1_x", "mlp.w12", "mlp.w3"),
    },
    fused={"attn.qkv": _contiguous("q", "k", "v"), "attn.kv": _contiguous("k", "v")},
    heads=(),  # timm models name their own classifier
)
_TORCHVISION = Family({"mlp": ("mlp.0", "mlp.3")}, heads=("heads", "head", "fc", "classifier"))
_GENERIC = Family(
    {
        "q": ("q_proj", "query"),
        "k": ("k_proj", "key"),
        "v": ("v_proj", "value"),
        "o": ("o_proj", "attn.out_proj"),
        "mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
    },
    heads=("classifier", "score", "head"),
)

_BY_MODEL_TYPE = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "roberta-prelayernorm"), _BERT),
    "albert": _ALBERT,
    "distilbert": _DISTILBERT,
    "deberta": _DEBERTA_V1,
    "deberta-v2": _DEBERTA,
    **dict.fromkeys(("bart", "mbart", "pegasus", "whisper", "opt", "m2m_100", "blenderbot"), _BART),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    **dict.fromkeys(
        (
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
        _LLAMA,
    ),
    "phi3": _PHI3,
    "phi": _PHI,
    "gpt2": _GPT2,
    "gpt_neo": _GPT_NEO,
    "gptj": _GPT_J,
    "gpt_neox": _GPT_NEOX,
    "bloom": _BLOOM,
    "falcon": _FALCON,
    **dict.fromkeys(("vit", "deit", "beit", "dinov2", "swin", "swinv2"), _HF_VIT),
    **dict.fromkeys(("clip", "clip_vision_model", "clip_text_model", "siglip"), _CLIP),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), _WAV2VEC2),
    **dict.fromkeys(("convnext", "convnextv2"), _CONVNEXT_HF),
}


def family_of(module: nn.Module) -> tuple[Family, str] | None:
    """The family that a module itself announces and its name, or ``None`` where the module announces none."""
    model_type = getattr(getattr(module, "config", None), "model_type", None)
    if model_type:
        return _BY_MODEL_TYPE.get(model_type, _GENERIC), model_type
    package = type(module).__module__
    if package.startswith("timm.models"):
        return _TIMM, "timm"
    if package.startswith("torchvision.models"):
        return _TORCHVISION, "torchvision"
    return None


GENERIC_FAMILY = (_GENERIC, "generic")
