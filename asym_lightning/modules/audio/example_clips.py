"""Clips and transcripts of the shapes that a model takes, without sound."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asym_lightning.core.private_names import num_frames
from asym_lightning.modules.audio.ctc import LENGTHS, CTCLengths
from asym_lightning.modules.batch_shape import BatchShape

RATE = 16_000
"""Samples a second that speech models take; no config says so, only the feature extractor beside a model."""


def example_clips(model: Any, shape: BatchShape) -> dict[str, Tensor]:
    """Return clips by the name of the model's input: samples, or spectra of the length that the model is made for.

    Args:
        model: A model of transformers.
        shape: Number of clips, and their seconds.

    Raises:
        ValueError: If a size is not known, or what the model takes.

    Example:
        >>> from transformers import ASTConfig, ASTModel
        >>> model = ASTModel(ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_length=32))
        >>> example_clips(model, BatchShape(size=2))["input_values"].shape
        torch.Size([2, 32, 128])
    """
    config, name, size = model.config, model.main_input_name, shape.known("size")
    bins = getattr(config, "num_mel_bins", None)
    if name == "input_features" and bins is not None and hasattr(config, "max_source_positions"):
        return {name: torch.zeros(size, bins, 2 * config.max_source_positions)}  # a convolution leaves every other one
    if name == "input_values" and bins is not None:
        return {name: torch.zeros(size, config.max_length, bins)}
    if name == "input_values":
        return {name: torch.zeros(size, round(shape.known("seconds") * RATE))}
    raise ValueError(f"what a {type(model).__name__} takes of sound is known to its feature extractor alone.")


def example_speech(model: Any, shape: BatchShape) -> dict[str, Any]:
    """Return clips with transcripts, which are as long as CTC has steps or the decoder positions, if nobody says.

    Args:
        model: A model of transformers.
        shape: Number of clips, their seconds, and the tokens of their transcripts.

    Raises:
        ValueError: If a size is not known, or what the model takes.
    """
    batch: dict[str, Any] = example_clips(model, shape)
    size, longest = shape.known("size"), getattr(model.config, "max_target_positions", None)
    if not model.config.is_encoder_decoder:
        steps = longest = int(num_frames(model, torch.tensor(batch[model.main_input_name].shape[1])))
        batch[LENGTHS] = CTCLengths((steps,) * size, (shape.target_length or steps,) * size)
    length = longest if shape.target_length is None and longest else shape.known("target_length")
    return {**batch, "labels": torch.zeros(size, length, dtype=torch.int64)}
