"""One small model of random weights for every type of transformers."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ResNetConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from benchmarks.coverage.small_config import HEAD_DIM, HEADS, VOCABULARY, small_config
from benchmarks.coverage.subject import Call, Subject, outputs
from benchmarks.coverage.transformers_inputs import calls_of, tower_calls

# What a model of the type is mostly trained as; first match counts.
_TASKS = (
    "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM", "SPEECH_SEQ_2_SEQ", "SEQ_TO_SEQ_CAUSAL_LM", "CAUSAL_LM",
    "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC", "OBJECT_DETECTION",
    "UNIVERSAL_SEGMENTATION", "SEMANTIC_SEGMENTATION", "VIDEO_CLASSIFICATION", "DEPTH_ESTIMATION", "MASKED_LM",
    "PRETRAINING", "QUESTION_ANSWERING",
)  # fmt: skip


def names() -> Sequence[str]:
    """The types that have a model of their own."""
    return [name for name in CONFIG_MAPPING_NAMES if model_class_name(name)]


def model_class_name(model_type: str) -> str | None:
    """The class that is built of a type, or ``None`` where it has none, as a configuration of a part has not."""
    tasks = list(_TASKS)
    is_seq2seq = model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_seq2seq:
        tasks.insert(0, "SEQUENCE_CLASSIFICATION")
    if model_type in modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        tasks = []
    for mapping in (*(f"MODEL_FOR_{task}_MAPPING_NAMES" for task in tasks), "MODEL_MAPPING_NAMES"):
        found = getattr(modeling_auto, mapping).get(model_type)
        if found:
            return found if isinstance(found, str) else found[0]
    return None


def subject(model_type: str) -> Subject:
    """A model of random weights, and calls that it takes.

    Raises:
        RuntimeError: None of the small configurations and of the calls that were tried work; the message is the last
            error of each.
    """
    import transformers

    name = model_class_name(model_type)
    assert name is not None
    model_class = getattr(transformers, name, None)
    if model_class is None:
        raise RuntimeError(f"transformers names the class {name} and does not have it")
    reasons: list[str] = []
    for variant in VARIANTS:
        try:
            config = small_config(model_type, {**variant, **OVERRIDES.get(model_type, {})})
            torch.manual_seed(0)
            model = model_class._from_config(config).float().eval()
        except Exception as error:  # what a type takes is found by trying
            reasons.append(f"not built: {_one_line(error)}")
            continue
        if sum(p.numel() for p in model.parameters()) > LARGEST:
            reasons.append(f"{sum(p.numel() for p in model.parameters()):,} parameters")
            continue
        try:
            for calls in calls_of(model):
                if (error := _error(model, calls)) is None:
                    towers = [call for call in tower_calls(model) if _error(model, [call]) is None]
                    has_image = any("pixel" in argument for argument in calls[0].arguments)
                    return Subject(model_type, model, calls + ([] if has_image else towers))
                reasons.append(f"not run: {error}")
        except AttributeError as error:  # its configuration has other fields than those that say what it is called with
            reasons.append(f"not called: {_one_line(error)}")
    raise RuntimeError(" | ".join(dict.fromkeys(reasons)))


def _error(model: nn.Module, calls: list[Call]) -> str | None:
    try:
        with torch.no_grad():
            return None if outputs(model, calls) else "no output"
    except Exception as error:
        return _one_line(error)


def _one_line(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ({Path(place.filename).name}:{place.lineno})"


LARGEST = 60_000_000
# Models that allow no grouping of keys and values, or whose widths hang together in ways of their own.
VARIANTS: tuple[dict[str, Any], ...] = (
    {}, {"*num_key_value_heads": HEADS}, {"*head_dim": HEAD_DIM}, {"mrope_section": True},
    {"mrope_section": True, "*num_key_value_heads": HEADS},
)  # fmt: skip
_RESNET = ResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic",
    out_features=["stage2", "stage3", "stage4"],
)  # fmt: skip
_RESNET_LAST = ResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
)
_SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 2}
_CONV_AUDIO = {
    "num_feat_extract_layers": 3, "conv_dim": [32, 32, 32], "conv_stride": [5, 4, 4], "conv_kernel": [10, 4, 4],
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_SERIES = {"prediction_length": 4, "context_length": 8}
_ZAMBA = ["mamba", "hybrid", "mamba", "hybrid"]
# Fields of several types, and of one.
_OVERRIDES_OF: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("detr", "conditional_detr", "dab-detr", "table-transformer"), {"backbone_config": _RESNET_LAST}),
    (("deformable_detr", "grounding-dino", "mm-grounding-dino"), {"backbone_config": _RESNET}),
    (("swin", "swinv2", "donut-swin", "maskformer-swin"), _SWIN),
    (("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew", "sew-d"), _CONV_AUDIO),
    (("data2vec-audio", "wav2vec2-conformer"), _CONV_AUDIO),
    (("autoformer", "informer", "time_series_transformer"), _SERIES),
    (("jamba",), {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
                  "num_hidden_layers": 2}),
    (("mamba2",), {"num_heads": 8, "head_dim": 16, "n_groups": 1}),
    (("zamba2",), {"n_mamba_heads": 8, "mamba_headdim": 16, "mamba_expand": 2, "mamba_ngroups": 1}),
    (("deepseek_v2",), {"num_key_value_heads": 4, "num_experts_per_tok": 2}),
    (("codegen", "gptj"), {"rotary_dim": 8}),
    (("recurrent_gemma",), {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]}),
    (("layoutlmv3",), {"coordinate_size": 8, "shape_size": 16}),
    (("esm",), {"vocab_size": VOCABULARY, "mask_token_id": 4, "pad_token_id": 0}),
    (("xmod",), {"default_language": "en_XX"}),
    (("pvt",), {"image_size": 64}),
    (("mobilebert",), {"intra_bottleneck_size": 64, "embedding_size": 64}),
    (("moonshine",), {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4}),
    (("bamba",), {"attn_layer_indices": [1], "num_hidden_layers": 2}),
    (("gpt_neo",), {"attention_types": [[["global", "local"], 1]], "num_layers": 2}),
    (("zamba",), {"layer_types": _ZAMBA, "num_hidden_layers": 4, "layers_block_type": _ZAMBA,
                  "attention_hidden_size": 128}),
    (("dots1",), {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                  "num_experts_per_tok": 2}),
)  # fmt: skip
OVERRIDES = {model_type: fields for model_types, fields in _OVERRIDES_OF for model_type in model_types}
