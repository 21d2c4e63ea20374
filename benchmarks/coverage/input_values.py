"""What one argument of a transformers model may be, by its name and the model's configuration."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.coverage.small_config import VOCABULARY

BATCH, LENGTH, FRAMES, SAMPLES = 2, 12, 64, 4000


def values_of(name: str, model: Any, widths: Sequence[int] = ()) -> list[Any]:
    """Values to try, the more likely first; none for an argument that is left out.

    Args:
        name: Of the argument.
        model: The model, with its configuration.
        widths: Numbers of features that the model was found to want.
    """
    if name == "flattened_patches":
        return list(_flattened_patches(model, widths))
    if name.startswith("pixel_values") or name in ("prompt_pixel_values", "prompt_masks", "hidden_states"):
        return list(_images(name, model, widths))
    if name in ("input_features", "input_values", "audio_mel", "spectrogram"):
        return list(_sounds(name, model, widths))
    if name in ("input_ids", "decoder_input_ids"):
        return list(_texts(name, model))
    if name == "bbox":
        boxes = torch.tensor([1, 2, 9, 10]).expand(BATCH, LENGTH, 4).contiguous()
        return [boxes, boxes / 10]
    value = _value(name, model, model.config)
    return [] if value is None else [value]


def _flattened_patches(model: Any, widths: Sequence[int]) -> Iterator[Tensor]:
    channels, _, _, patch, _ = _image_sizes(_part(model.config, "vision"))
    for width in (channels * patch * patch, *widths):
        yield torch.cat([torch.ones(BATCH, 16, 2), torch.randn(BATCH, 16, width)], -1)


def _images(name: str, model: Any, widths: Sequence[int]) -> Iterator[Tensor]:
    vision = _part(model.config, "vision")
    channels, height, width, patch, temporal = _image_sizes(vision)
    flat = channels * patch * patch
    if name == "hidden_states":
        yield torch.randn(16 * BATCH, flat * temporal)
        for features in (_first(model.config, ("hidden_size", "d_model"), 64), *widths):
            yield torch.randn(BATCH, LENGTH, features)
            yield torch.randn(16 * BATCH, features)
            yield torch.randn(BATCH, features, SAMPLES if features == 1 else LENGTH)
        return
    whole = torch.randn(BATCH, channels, height, width)
    frames = _first(vision, ("num_frames", "frames_per_clip"), None)
    if name == "pixel_values_videos":
        yield torch.randn(BATCH, frames or 4, channels, height, width)
        return
    names = " ".join(inspect.signature(getattr(model, "get_image_features", model.forward)).parameters)
    if name == "pixel_values" and "grid" in names and hasattr(vision, "temporal_patch_size"):
        yield torch.randn(16 * BATCH, flat * temporal)
    elif name == "pixel_values" and type(model).__name__.startswith(("Siglip2", "Lfm2Vl")):
        yield torch.randn(BATCH, 16, flat)
    elif frames:
        yield torch.randn(BATCH, frames, channels, height, width)
    yield whole
    for size in (32, 64, 128, 224, 256):
        if size != height:
            yield torch.randn(BATCH, channels, size, size)
    for number in (2, 1, 4):
        yield torch.randn(BATCH, number, channels, height, width)
    for features in dict.fromkeys((flat, flat * temporal, *widths)):
        yield torch.randn(BATCH, 16, features)
        yield torch.randn(16 * BATCH, features)
    yield torch.randn(16 * BATCH, channels, patch, patch)
    merged = patch * _first(vision, ("spatial_merge_size",), 1)
    yield torch.randn(16 * BATCH, merged, merged, channels)


def _image_sizes(vision: Any) -> tuple[int, int, int, int, int]:
    """Channels, height, width, and the width and the length of a patch."""
    channels = _first(vision, ("num_channels", "in_channels", "in_chans"), 3)
    size = _first(vision, ("image_size", "img_size", "input_size", "max_img_size"), 64)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if isinstance(size, dict):
        height, width = size.get("height", 32), size.get("width", 32)
    patch = _first(vision, ("patch_size",), 8)
    patch = patch if isinstance(patch, int) else patch[0]
    return channels, height, width, patch, _first(vision, ("temporal_patch_size",), 1)


def _sounds(name: str, model: Any, widths: Sequence[int]) -> Iterator[Tensor]:
    config = model.config
    mels, frames = _mels(config), _audio_frames(_part(config, "audio"))
    shapes: list[tuple[int, ...]] = []
    if name == "input_values":
        if hasattr(config, "audio_channels"):
            shapes.append((config.audio_channels, SAMPLES))
        elif hasattr(config, "max_length") and hasattr(config, "num_mel_bins"):
            shapes.append((config.max_length, config.num_mel_bins))
        shapes += [(SAMPLES,), (1, SAMPLES)]
    shapes += [(FRAMES, mels), (mels, frames)] if _is_frames_first(model) else [(mels, frames), (FRAMES, mels)]
    shapes += [shape for width in widths for shape in ((FRAMES, width), (width, frames), (LENGTH, width))]
    # Frames in pairs, in windows of a hundred, and images of a spectrum.
    shapes += [(mels, 200), (200, mels), (1, frames, mels), (1, 1001, mels)]
    shapes.append((mels, 8 * LENGTH))  # which is as long as the text after three layers of stride 2
    # As many mels as most have, where the configuration says how many nowhere.
    shapes += [shape for number in (128, 80) for shape in ((FRAMES, number), (number, FRAMES))]
    for shape in dict.fromkeys(shapes):
        yield torch.randn(BATCH, *shape)


def _mels(config: Any) -> int:
    names = ("num_mel_bins", "n_mels", "num_mel_channels", "feature_size", "input_dim", "input_feat_size", "input_size")
    number: int = _first(_part(config, "audio"), (*names, "feature_projection_input_dim"), 80)
    return number


def made_to_fit(arguments: dict[str, Any], model: Any) -> dict[str, Any]:
    """Arguments of a call in which a mask of frames is as long as these, and prompts are as large as the image."""
    masks = {}
    if "pixel_values" in arguments:
        prompts = (name for name in ("prompt_pixel_values", "prompt_masks") if name in arguments)
        masks |= {name: arguments["pixel_values"].flip(0) for name in prompts}
    for name in arguments:
        sound = arguments.get(name.removesuffix("_mask")) if name.endswith("_mask") else None
        if name in ("input_features_mask", "audio_mel_mask") and sound is not None and sound.dim() == 3:
            frames = next((n for n in sound.shape[1:] if n != _mels(model.config)), sound.shape[1])
            masks[name] = arguments[name][:, :1].repeat(1, frames)
    return arguments | masks


def _texts(name: str, model: Any) -> Iterator[Tensor]:
    """Tokens, and those of several codebooks."""
    text = _text(model)
    yield text
    config = _part(model.config, "decoder" if name.startswith("decoder") else "text")
    number = _first(config, ("num_codebooks", "n_codes_total"), None)
    number = number or (_first(config, ("num_channels",), None) if name.startswith("decoder") else None)
    if isinstance(number, int):
        yield text[..., None].expand(*text.shape, number)
        yield text[..., None].expand(*text.shape, number + 1)  # of the text and of each codebook
        yield text.repeat_interleave(number, 0)
        yield text[:, None].expand(BATCH, number, text.shape[1])


def _text(model: Any, length: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    parts = (_part(model.config, "text"), *(part for _, part in _parts(model.config)))
    vocabulary = next((size for part in parts if (size := getattr(part, "vocab_size", None))), VOCABULARY)
    vocabulary = vocabulary if isinstance(vocabulary, int) else VOCABULARY
    # Special tokens are at either end of the small vocabularies.
    tokens = torch.randint(10, max(min(vocabulary, VOCABULARY) - 50, 12), (BATCH, length), generator=generator)
    if (question := getattr(model.config, "question_token_id", None)) is not None:
        tokens[:, 1] = question  # what is asked for
    return tokens


def _value(name: str, model: Any, config: Any) -> Any:
    vision = _part(config, "vision")
    _, height, width, _, _ = _image_sizes(vision)
    hidden = _first(_part(config, "text"), ("hidden_size", "d_model"), 64)
    lags = _first(config, ("lags_sequence",), [0])
    steps = _first(config, ("context_length",), 64) + max(lags)
    match name:
        case "qformer_input_ids" | "classes_input_ids" | "tasks_input_ids":
            return _text(model)
        case "classes_attention_mask" | "tasks_attention_mask":
            return torch.ones(BATCH, LENGTH, dtype=torch.long)
        case "classes_structure":
            return torch.ones(BATCH, dtype=torch.long)
        case "attention_mask":
            return torch.ones(BATCH, LENGTH, dtype=torch.long) if model.main_input_name == "input_ids" else None
        case "inputs_embeds" | "noise_embeds":
            return torch.randn(BATCH, LENGTH, hidden)
        case "context_hidden_states":
            return torch.randn(BATCH, LENGTH, hidden * len(getattr(config, "target_layer_ids", None) or [0]))
        case "latents":
            return torch.randn(BATCH, _first(config, ("hidden_size",), 64), LENGTH)
        case "query_embeds":
            return torch.randn(BATCH, 8, hidden)
        case "image_grid_thw" | "grid_thw" | "image_grid_hws" | "grid_hws":
            return torch.tensor([[1, 4, 4]] * BATCH)[:, 3 - len(name.rpartition("_")[2]) :]
        case "merge_sizes":
            return torch.ones(BATCH, dtype=torch.long)
        case "image_embeds_position_mask":
            return (torch.arange(LENGTH) < config.latent_query_num).expand(BATCH, LENGTH)
        case "image_attention_mask":
            return torch.ones(BATCH, LENGTH, 2, dtype=torch.long)
        case "pixel_attention_mask":
            return torch.ones(BATCH, 16, dtype=torch.long)
        case "pixel_position_ids" | "image_position_ids":
            return torch.cartesian_prod(torch.arange(4), torch.arange(4)).expand(BATCH, 16, 2)
        case "spatial_shapes" | "target_sizes" | "tgt_sizes":
            return torch.tensor([[4, 4]] * BATCH)
        case "image_sizes":
            return torch.tensor([[height, width]] * BATCH)
        case "input_features_mask":
            return torch.ones(BATCH, FRAMES, dtype=torch.long)
        case "audio_mel_mask":  # of frames that are none
            return torch.zeros(BATCH, FRAMES, dtype=torch.bool)
        case "encoder_hidden_states" if hasattr(config, "encoder_hidden_size"):
            return torch.randn(BATCH, LENGTH, config.encoder_hidden_size)
        case "visual_feats":
            return torch.randn(BATCH, 4, config.visual_feat_dim)
        case "visual_pos":
            return torch.rand(BATCH, 4, config.visual_pos_dim)
        case "past_values" if hasattr(config, "lags_sequence"):
            return torch.rand(BATCH, steps)
        case "past_values" if hasattr(config, "num_input_channels"):
            return torch.randn(BATCH, steps, config.num_input_channels)
        case "past_values":
            return torch.randn(BATCH, steps)
        case "past_values_padding":
            return torch.zeros(BATCH, steps)
        case "freq":
            return torch.zeros(BATCH, 1, dtype=torch.long)
        case "past_time_features" if hasattr(config, "num_time_features"):
            return torch.rand(BATCH, steps, config.num_time_features)
        case "past_observed_mask" if hasattr(config, "lags_sequence"):
            return torch.ones(BATCH, steps)
        case "state" | "states" | "actions" | "rewards" | "returns_to_go" | "timesteps":
            return _of_a_policy(name, config)
        case "task_inputs":
            return torch.randint(1, 50, (BATCH, config.task_seq_len))
    return None


def _of_a_policy(name: str, config: Any) -> Tensor | None:
    states = _first(config, ("state_dim", "max_state_dim"), 17)
    match name:
        case "state":
            return torch.randn(BATCH, states)
        case "states":
            return torch.randn(BATCH, LENGTH, states)
        case "actions":
            return torch.randn(BATCH, LENGTH, _first(config, ("act_dim", "max_action_dim"), 4))
        case "timesteps":
            return torch.arange(LENGTH).expand(BATCH, LENGTH)
    return torch.randn(BATCH, LENGTH, 1)


def _is_frames_first(model: Any) -> bool:
    words = (
        "bert", "clap", "parakeet", "lasr", "granite", "canary", "cohere", "Speech2Text", "Seamless", "glm", "fun",
        "nemotron", "gemma",
    )  # fmt: skip
    return any(word.lower() in type(model).__name__.lower() for word in words)


def _audio_frames(audio: Any) -> int:
    positions = _first(audio, ("max_source_positions",), None)
    return 2 * positions if isinstance(positions, int) else FRAMES


def _part(config: Any, word: str) -> Any:
    """The sub-configuration of a tower, or the configuration itself."""
    words = (word, "image") if word == "vision" else (word,)
    parts = dict(_parts(config))
    named = (part for word in words for name, part in parts.items() if name == f"{word}_config")
    return next(
        itertools.chain(named, (part for word in words for name, part in parts.items() if word in name)), config
    )


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    """Configurations within one, by what they are called, those within them after them."""
    parts = [(name, value) for name, value in vars(config).items() if hasattr(value, "to_dict")]
    yield from parts
    for _, part in parts:
        yield from _parts(part)


def _first(config: Any, names: tuple[str, ...], default: Any) -> Any:
    return next((v for n in names if (v := getattr(config, n, None)) is not None), default)
