"""What a small model of transformers is called with, found by the names of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.small_config import VOCABULARY
from benchmarks.coverage.subject import Call

BATCH, LENGTH, FRAMES, SAMPLES = 2, 12, 64, 4000
_TOWERS = ("get_text_features", "get_image_features", "get_audio_features", "get_video_features")


def calls_of(model: nn.Module) -> Iterator[list[Call]]:
    """Calls to try, the more complete first."""
    forward = _arguments(model, model.forward, model)
    for extra in (_with_images(model), {}):
        for names in (_names(model, forward), _names(model, forward) - {"attention_mask"}):
            yield [Call("forward", {n: v for n, v in {**forward, **extra}.items() if n in names or n in extra})]


def tower_calls(model: nn.Module) -> list[Call]:
    """Calls of the towers of a model of several kinds of input."""
    calls = []
    for method in _TOWERS:
        if callable(getattr(model, method, None)):
            found = _arguments(model, getattr(model, method), model)
            required = set(inspect.signature(getattr(model, method)).parameters)
            calls.append(Call(method, {n: v for n, v in found.items() if n in required}))
    return calls


# What goes with text and with images, beside what has no default.
_WITH_TEXT = ("input_ids", "attention_mask", "decoder_input_ids", "bbox", "visual_feats", "visual_pos")
_WITH_IMAGES = ("spatial_shapes", "pixel_attention_mask")
_OF_TOWERS = ("pixel_values", "input_features", "input_values")


def _names(model: nn.Module, found: dict[str, Any]) -> set[str]:
    """The arguments to give: those without a default, the main input, and what goes with it."""
    parameters = inspect.signature(model.forward).parameters
    required = {n for n, p in parameters.items() if p.default is p.empty}
    main = model.main_input_name
    required |= set(main if isinstance(main, list) else [main])
    required |= {*_WITH_TEXT, *_WITH_IMAGES}
    # Both towers of a model that compares two; of one that writes about images, the tower is called apart.
    is_dual = not callable(getattr(model, "generate", None)) or not getattr(model, "can_generate", bool)()
    if is_dual and main == "input_ids":
        required |= set(_OF_TOWERS)
    return {n for n in found if n in parameters and n in required}


def _with_images(model: nn.Module) -> dict[str, Any]:
    """Text with an image in it, where the model says with how many tokens."""
    config = model.config
    token = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    if not isinstance(token, int) or not callable(getattr(model, "get_image_features", None)):
        return {}
    try:
        arguments = next(c.arguments for c in tower_calls(model) if c.method == "get_image_features")
        torch.manual_seed(0)
        with torch.no_grad():
            found = model.eval().get_image_features(**arguments)
        features = getattr(found, "pooler_output", found)
        features = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
        number = features.numel() // features.shape[-1]
    except Exception:  # models differ in what they take, which is found by trying
        return {}
    if number % BATCH:
        return {}
    text = _text(model)
    images = torch.full((BATCH, number // BATCH), token)
    ids = torch.cat([text[:, :2], images, text[:, 2:]], 1)
    extra = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **arguments}
    names = inspect.signature(model.forward).parameters
    if "token_type_ids" in names:
        extra["token_type_ids"] = (ids == token).long()
    if "mm_token_type_ids" in names:
        extra["mm_token_type_ids"] = (ids == token).int()
    return {n: v for n, v in extra.items() if n in names}


def _arguments(model: Any, function: Any, owner: Any) -> dict[str, Any]:
    config = model.config
    found: dict[str, Any] = {}
    torch.manual_seed(0)
    for name in inspect.signature(function).parameters:
        value = _argument(name, model, config)
        if value is not None:
            found[name] = value
    return found


def _text(model: Any, length: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    vocabulary = getattr(_part(model.config, "text"), "vocab_size", None) or VOCABULARY
    vocabulary = vocabulary if isinstance(vocabulary, int) else VOCABULARY
    # Special tokens are at either end of the small vocabularies.
    return torch.randint(10, max(min(vocabulary, VOCABULARY) - 50, 12), (BATCH, length), generator=generator)


def _argument(name: str, model: Any, config: Any) -> Any:
    vision, audio = _part(config, "vision"), _part(config, "audio")
    channels = _first(vision, ("num_channels", "in_channels", "in_chans"), 3)
    size = _first(vision, ("image_size", "img_size", "input_size"), 64)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if isinstance(size, dict):
        height, width = size.get("height", 32), size.get("width", 32)
    patch = _first(vision, ("patch_size",), 8)
    patch = patch if isinstance(patch, int) else patch[0]
    temporal = _first(vision, ("temporal_patch_size",), 1)
    mels = _first(audio, ("num_mel_bins", "n_mels", "feature_size", "input_dim", "input_feat_size", "input_size"), 80)
    grid = torch.tensor([[1, 4, 4]] * BATCH)
    patches = 16 * BATCH
    has_grid = "grid" in " ".join(inspect.signature(getattr(model, "get_image_features", model.forward)).parameters)
    match name:
        case "input_ids" | "decoder_input_ids" | "qformer_input_ids":
            return _text(model)
        case "attention_mask":
            return torch.ones(BATCH, LENGTH, dtype=torch.long) if model.main_input_name == "input_ids" else None
        case "pixel_values" if has_grid and hasattr(vision, "temporal_patch_size"):
            return torch.randn(patches, channels * patch * patch * temporal)
        case "pixel_values" if name in ("pixel_values",) and type(model).__name__.startswith(("Siglip2", "Lfm2Vl")):
            return torch.randn(BATCH, 16, channels * patch * patch)
        case "pixel_values":
            frames = getattr(vision, "num_frames", None)
            shape = (BATCH, frames, channels, height, width) if frames else (BATCH, channels, height, width)
            return torch.randn(shape)
        case "pixel_values_videos":
            return torch.randn(BATCH, _first(vision, ("num_frames", "frames_per_clip"), 4), channels, height, width)
        case "hidden_states":
            return torch.randn(patches, channels * patch * patch * temporal)
        case "image_grid_thw" | "grid_thw":
            return grid
        case "pixel_attention_mask":
            return torch.ones(BATCH, 16, dtype=torch.long)
        case "spatial_shapes":
            return torch.tensor([[4, 4]] * BATCH)
        case "image_sizes":
            return torch.tensor([[height, width]] * BATCH)
        case "input_features":
            return torch.randn(BATCH, *((FRAMES, mels) if _is_frames_first(model) else (mels, _audio_frames(audio))))
        case "input_features_mask":
            return torch.ones(BATCH, FRAMES, dtype=torch.long)
        case "input_values":
            if hasattr(config, "audio_channels"):
                return torch.randn(BATCH, config.audio_channels, SAMPLES)
            if hasattr(config, "max_length") and hasattr(config, "num_mel_bins"):
                return torch.randn(BATCH, config.max_length, config.num_mel_bins)
            return torch.randn(BATCH, SAMPLES)
        case "bbox":
            return torch.tensor([1, 2, 9, 10]).expand(BATCH, LENGTH, 4).contiguous()
        case "visual_feats":
            return torch.randn(BATCH, 4, config.visual_feat_dim)
        case "visual_pos":
            return torch.rand(BATCH, 4, config.visual_pos_dim)
        case "flattened_patches":
            return torch.cat([torch.ones(BATCH, 16, 2), torch.randn(BATCH, 16, channels * patch * patch)], -1)
        case "past_values" if hasattr(config, "lags_sequence"):
            return torch.rand(BATCH, config.context_length + max(config.lags_sequence))
        case "past_values":
            return torch.randn(BATCH, config.context_length, getattr(config, "num_input_channels", 1))
        case "past_time_features":
            steps = config.context_length + max(config.lags_sequence)
            return torch.rand(BATCH, steps, config.num_time_features)
        case "past_observed_mask":
            return torch.ones(BATCH, config.context_length + max(config.lags_sequence))
        case "task_inputs":
            return torch.randint(1, 50, (BATCH, config.task_seq_len))
        case "return_loss":
            return None
    return None


def _is_frames_first(model: Any) -> bool:
    words = ("bert", "clap", "parakeet", "lasr", "granite", "canary", "cohere", "Speech2Text", "Seamless", "glm", "fun")
    return any(word.lower() in type(model).__name__.lower() for word in words)


def _audio_frames(audio: Any) -> int:
    positions = _first(audio, ("max_source_positions",), None)
    return 2 * positions if isinstance(positions, int) else FRAMES


def _part(config: Any, word: str) -> Any:
    """The sub-configuration of a tower, or the configuration itself."""
    for name, value in vars(config).items():
        if word in name and hasattr(value, "to_dict"):
            return value
    return config


def _first(config: Any, names: tuple[str, ...], default: Any) -> Any:
    return next((v for n in names if (v := getattr(config, n, None)) is not None), default)
