"""Connectionist temporal classification: the loss of transcripts that nobody has aligned with their audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from asym_lightning.core.private_names import num_frames
from asym_lightning.core.tokens import IGNORED

LENGTHS = "ctc_lengths"
"""What a batch has its `CTCLengths` under."""


class CTCLengths(NamedTuple):
    """How long clips and their transcripts are: numbers, which the loss wants on the CPU.

    Attributes:
        frames: Steps that the model makes of each clip.
        labels: Tokens of each transcript.
    """

    frames: tuple[int, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, batch: Mapping[str, Any]) -> CTCLengths:
        """Count both in a batch that is on the CPU, and warn of a clip too short for its transcript."""
        labels = (batch["labels"] != IGNORED).sum(dim=1).tolist()
        frames = clip_frames(model, batch).tolist()
        short = [row for row, (steps, count) in enumerate(zip(frames, labels, strict=True)) if steps < count]
        if short:
            name = f" {batch['file'][short[0]]}" if "file" in batch else ""
            rank_zero_warn(
                f"the clip{name} is too short for its transcript, {frames[short[0]]} steps for {labels[short[0]]} "
                "tokens, and counts for nothing: does the transcript belong to it?"
            )
        return cls(tuple(frames), tuple(labels))


def clip_frames(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Steps that a speech encoder makes of each clip, which ends where its mask does."""
    mask: Tensor | None = batch.get("attention_mask")
    if mask is not None:
        return num_frames(model, mask.sum(dim=1))
    clips: Tensor = batch[model.main_input_name]
    return num_frames(model, clips.new_full(clips.shape[:1], clips.shape[1]).long())


def likeliest_tokens(model: Any, inputs: Mapping[str, Any], logits: Tensor, blank: int) -> Tensor:
    """Return the likeliest token of each step (clips, steps); behind a clip's end it is the blank.

    Args:
        model: The speech encoder.
        inputs: What it is given of the clips.
        logits: Of each step (clips, steps, tokens).
        blank: The token that says nothing.
    """
    tokens = logits.argmax(dim=-1)
    is_clip = torch.arange(tokens.shape[1], device=tokens.device) < clip_frames(model, inputs)[:, None]
    return tokens.where(is_clip, blank)


def ctc_loss(logits: Tensor, labels: Tensor, lengths: CTCLengths, blank: int) -> Tensor:
    """Return the mean over clips of the loss by token; a clip too short for its transcript counts as 0.

    Args:
        logits: Of each step (clips, steps, tokens).
        labels: Tokens of the transcripts, padded (clips, length).
        lengths: How long they are.
        blank: The token that says nothing.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]]])
        >>> round(float(ctc_loss(logits, torch.tensor([[1, 2]]), CTCLengths((2,), (2,)), blank=0)), 4)
        0.0002
    """
    log_probabilities = logits.float().log_softmax(dim=-1).transpose(0, 1)
    losses = F.ctc_loss(
        log_probabilities,
        labels.clamp(min=0),
        lengths.frames,  # type: ignore[arg-type]  # numbers are taken as well, and are not waited for
        lengths.labels,  # type: ignore[arg-type]
        blank=blank,
        zero_infinity=True,
        reduction="none",
    )
    # What `reduction="mean"` does, which copies lengths to a GPU.
    return (losses / (labels != IGNORED).sum(dim=1).clamp(min=1)).mean()
