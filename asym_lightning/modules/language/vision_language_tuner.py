"""Tuning of models that answer questions on pictures: LLaVA, Qwen-VL, Idefics, SmolVLM and their like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import pad

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count, NumberOrZero
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.instruction_tuner import InstructionTuner, right_aligned
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule

OF_TOKENS = ("token_type_ids", "mm_token_type_ids")
OF_DATA = ("input_ids", "attention_mask", "labels", "label_positions", "prompt_length", "source", "reference", "row")


class VisionLanguageTuner(InstructionTuner):
    """Teach a model to answer questions on pictures: cross-entropy of the answers, given pictures and questions.

    Batches are dictionaries with `input_ids`, `attention_mask` and `labels` (batch, length), the tokens of the answers
    and -100 elsewhere; `token_type_ids` or `mm_token_type_ids` if the model takes them; what it takes of pictures, such
    as `pixel_values`, a list with a tensor for each row; and for evaluation `prompt_length`, the number of tokens
    before the last answer, and the texts `source` and `reference`.

    Logs `loss`, the mean over the answers' tokens, `token_accuracy`, and `exact_match`, the share of generated answers
    that equal the reference. `predict` writes `responses.jsonl` with `prompt`, `reference` and `response`.

    Roles such as `q` mean layers of the language model and of its towers alike. `exclude: [vision_tower]` leaves the
    tower out, the role `towers` means it alone, and `projector` what lies between, which `heads` trains in full by its
    name, such as `heads: [multi_modal_projector]`.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; null trains everything, which needs `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        chunk_size: Number of positions whose logits exist at one time; null forms those of all labelled positions.
        decoding: How answers are generated; null means greedily, at most 64 tokens.
        num_val_samples: Number of questions that are answered in validation; null means all, 0 none.
        num_test_samples: The same in testing.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or a number is out of range.

    Example:
        >>> adapter = AdapterConfig(targets=["q", "k", "v"], exclude=["vision_tower"])
        >>> VisionLanguageTuner("llava-hf/llava-1.5-7b-hf", adapter).decoding.max_new_tokens
        64
    """

    architecture = "vision-language"

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        chunk_size: Count | None = 1024,
        decoding: Decoding | None = None,
        num_val_samples: NumberOrZero | None = 8,
        num_test_samples: NumberOrZero | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(
            backbone=backbone,
            adapter=adapter,
            train_backbone=train_backbone,
            chunk_size=chunk_size,
            decoding=decoding,
            num_val_samples=num_val_samples,
            num_test_samples=num_test_samples,
            optimizer=optimizer,
            scheduler=scheduler,
            backbone_options=backbone_options,
        )

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Refuse, for it takes the processor to tell what a picture becomes.

        Raises:
            ValueError: Always.
        """
        raise ValueError("how many tokens and numbers a picture becomes is known to the processor alone.")

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return tokens and pictures."""
        of_tokens = {name: batch[name] for name in OF_TOKENS if name in batch}
        return {**super().inputs(batch), **of_tokens, **_of_pictures(batch)}

    def prompts(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return what comes before the last answer, padded on the left, and the pictures."""
        lengths = batch["prompt_length"]
        paddings = {"input_ids": self.pad_token_id, "attention_mask": 0, **dict.fromkeys(OF_TOKENS, 0)}
        of_tokens = {name: right_aligned(batch[name], lengths, p) for name, p in paddings.items() if name in batch}
        return {**of_tokens, **_of_pictures(batch)}


def _of_pictures(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the model takes of pictures: tensors of all rows, padded where rows differ in more than the number."""
    names = [name for name in batch if name not in (*OF_DATA, *OF_TOKENS)]
    return {name: stacked(batch[name]) for name in names}


def stacked(tensors: list[Tensor]) -> Tensor:
    """Lay tensors one behind another, padded with zeros in their other dimensions.

    Example:
        >>> stacked([torch.ones(1, 2), torch.ones(2, 1)])
        tensor([[1., 1.],
                [1., 0.],
                [1., 0.]])
    """
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    margins = [
        [m for size, wanted in zip(reversed(t.shape[1:]), reversed(shape), strict=True) for m in (0, wanted - size)]
        for t in tensors
    ]
    return torch.cat([pad(tensor, margin) for tensor, margin in zip(tensors, margins, strict=True)])
