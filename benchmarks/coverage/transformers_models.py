"""One small model of random weights for every type of transformers."""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import ResNetConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from benchmarks.coverage.small_config import (
    COUNTS,
    HEAD_DIM,
    HEADS,
    IMAGE,
    RULES,
    VOCABULARY,
    WIDTH,
    Rules,
    small_config,
)
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
            own = OVERRIDES.get(model_type, {})
            config = small_config(model_type, {**variant.fields, **own}, *variant[1:])
            if (size := _size(model_class, config)) > LARGEST:
                reasons.append(f"{size:,} parameters")
                continue
            torch.manual_seed(0)
            model = model_class._from_config(config).float().eval()
        except Exception as error:  # what a type takes is found by trying
            reasons.append(f"not built: {_one_line(error)}")
            continue
        try:
            calls, failed = working_calls(model)
        except AttributeError as error:  # its configuration has other fields than those that say what it is called with
            reasons.append(f"not called: {_one_line(error)}")
            continue
        if calls:
            return Subject(model_type, model, calls)
        reasons += [f"not run: {error}" for error in failed[:1]]
    raise RuntimeError(" | ".join(dict.fromkeys(reasons)))


def _size(model_class: Any, config: Any) -> int:
    """How many weights there would be; 0 where building it needs their values."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in model_class._from_config(config).parameters())
    except Exception:
        return 0


def working_calls(model: nn.Module) -> tuple[list[Call], list[str]]:
    """The first calls that work, with those of towers; and what was said of the ones before."""
    failed: list[str] = []
    # A second time with what the first was told.
    for calls in itertools.chain(calls_of(model), _calls_as_told(model, failed)):
        if (error := _error(model, calls)) is not None:
            failed.append(error)
            continue
        if not any("pixel" in argument for argument in calls[0].arguments):
            calls += tower_calls(model, lambda call: _error(model, [call]) is None)
        return calls, failed
    return [], failed


# What torch says of an input that has another number of features than a layer wants.
_WANTED = (
    re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x\d+ and (\d+)x"),
    re.compile(r"Given normalized_shape=\[(\d+)\]"),
    re.compile(r"to have (\d+) channels"),
    re.compile(r"expects (\d+)"),
    re.compile(r"size of tensor a \(\d+\) must match the size of tensor b \((\d+)\)"),
)


def _calls_as_told(model: nn.Module, errors: list[str]) -> Iterator[list[Call]]:
    """Calls with the numbers of features that the errors so far ask for."""
    found = [int(match[1]) for error in errors for pattern in _WANTED if (match := pattern.search(error))]
    if found:
        yield from calls_of(model, list(dict.fromkeys(found)))


def _error(model: nn.Module, calls: list[Call]) -> str | None:
    try:
        with torch.no_grad():
            return None if outputs(model, calls) else "no output"
    except Exception as error:
        return _one_line(error)


def _one_line(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]} ({Path(place.filename).name}:{place.lineno})"


class Variant(NamedTuple):
    """A way to make a configuration small; see `small_config`."""

    fields: dict[str, Any]
    rules: Rules = RULES
    lists: bool = False
    missing: bool = False


LARGEST = 120_000_000
# Models that allow no grouping of keys and values, or whose widths hang together in ways of their own.
VARIANTS = (
    Variant({}),
    Variant({"*num_key_value_heads": HEADS}),
    Variant({"*head_dim": HEAD_DIM}),
    Variant({"mrope_section": True}),
    Variant({"mrope_section": True, "*num_key_value_heads": HEADS}),
    Variant({}, missing=True),
    Variant({}, lists=True),
    Variant({}, lists=True, missing=True),
    Variant({}, COUNTS, lists=True),
    Variant({}, COUNTS),
)
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
    (("zamba2",), {"n_mamba_heads": 8, "mamba_headdim": 16, "mamba_expand": 2, "mamba_ngroups": 1,
                   "attention_hidden_size": 128, "attention_head_dim": 32}),
    (("deepseek_v2",), {"num_key_value_heads": 4, "num_experts_per_tok": 2}),
    (("codegen", "gptj"), {"rotary_dim": 8}),
    (("recurrent_gemma",), {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]}),
    (("layoutlmv3",), {"coordinate_size": 8, "shape_size": 16}),
    (("esm",), {"vocab_size": VOCABULARY, "mask_token_id": 4, "pad_token_id": 0}),
    (("xmod",), {"default_language": "en_XX"}),
    (("pvt",), {"image_size": 64}),
    (("levit",), {"image_size": 128}),  # or too few numbers are normalised together
    (("mobilebert",), {"intra_bottleneck_size": 64, "embedding_size": 64}),
    (("moonshine",), {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4}),
    (("bamba",), {"attn_layer_indices": [1], "num_hidden_layers": 2}),
    (("gpt_neo",), {"attention_types": [[["global", "local"], 1]], "num_layers": 2}),
    (("zamba",), {"layer_types": _ZAMBA, "num_hidden_layers": 4, "layers_block_type": _ZAMBA,
                  "attention_hidden_size": 128}),
    (("lfm2_moe",), {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}),
    (("granitemoehybrid",), {n: ["linear_attention", "full_attention"] for n in ("layer_types", "layers_block_type")}
                            | {"num_hidden_layers": 2, "mamba_n_heads": 8, "mamba_d_head": 16}),
    (("dory",), {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1, "num_hidden_layers": 3,
                 "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    (("qwen4_exp", "qwen4_exp_text"), {"*indexer_n_heads": 4, "*indexer_kv_heads": 1, "*indexer_head_dim": 16,
                                       "*indexer_budget": 8, "*indexer_compress_ratio": 4}),
    (("longcat_flash",), {"qk_head_dim": 2 * HEAD_DIM}),
    (("reformer",), {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [3, 4], "attn_layers": ["local", "lsh"],
                     "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "is_decoder": True,
                     # It draws seeds of its own, which no seed of ours reaches.
                     "hash_seed": 0, "hidden_dropout_prob": 0.0, "lsh_attention_probs_dropout_prob": 0.0,
                     "local_attention_probs_dropout_prob": 0.0}),
    (("chameleon", "emu3"), {"vocabulary_map": {"<image>": VOCABULARY - 1}}),
    (("pocket_tts", "gradium_phonon_tts"), {"flow_head_config.condition_dim": WIDTH}),
    (("fun_asr_nano",), {"adaptor_config.intermediate_size": WIDTH // 4}),
    (("gemma4_assistant",), {"*hidden_size_per_layer_input": 0}),
    (("step3p7",), {"*sliding_window": 4}),
    (("depth_pro",), {"patch_size": IMAGE}),
    (("dots1",), {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                  "num_experts_per_tok": 2}),
)  # fmt: skip
OVERRIDES = {model_type: fields for model_types, fields in _OVERRIDES_OF for model_type in model_types}
