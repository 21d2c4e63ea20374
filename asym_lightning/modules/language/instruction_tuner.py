"""Instruction tuning of any Hugging Face decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count, NumberOrZero
from asym_lightning.core.tokens import IGNORED
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.language.chunked_cross_entropy import chunked_cross_entropy
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.generative_module import GenerativeModule
from asym_lightning.modules.language.label_positions import LabelPositions
from asym_lightning.modules.language.language_model import last_hidden_states
from asym_lightning.modules.language.packed_attention import packed_inputs
from asym_lightning.modules.metrics.exact_match import ExactMatch
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class InstructionTuner(LabelPositions, GenerativeModule):
    """Teach a decoder to answer: cross-entropy of the responses, given the prompts.

    Batches are dictionaries with `input_ids`, `attention_mask` and `labels` (batch, length); labels are the tokens
    themselves, -100 in prompts and padding. Packed batches also have `segment_ids` and `position_ids`.

    Logs `loss`, the mean over the responses' tokens, `token_accuracy`, and `exact_match`, the share of generated
    responses that equal the reference. `predict` writes `responses.jsonl` with `prompt`, `reference` and `response`.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; null trains everything, which needs `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        chunk_size: Number of positions whose logits exist at one time; null forms those of all labelled positions.
        decoding: How responses are generated; null means greedily, at most 64 tokens.
        num_val_samples: Number of prompts that are answered in validation; null means all, 0 none.
        num_test_samples: The same in testing.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or a number is out of range.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2)
        >>> module = InstructionTuner(LlamaForCausalLM(config), adapter=AdapterConfig(rank=2, targets=["q", "v"]))
        >>> module.configure_model()
        >>> ids = torch.tensor([[1, 7, 8, 2]])
        >>> labels = torch.tensor([[-100, -100, 8, 2]])
        >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        >>> len(module.step(batch).targets)  # the tokens that count
        2
    """

    architecture = "causal"
    sample_keys = ("prompt", "reference", "response")
    predictions_file = "responses.jsonl"
    first_label = 1  # of the second token: nothing comes before the first one

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
            decoding=decoding,
            num_val_samples=num_val_samples,
            num_test_samples=num_test_samples,
            optimizer=optimizer,
            scheduler=scheduler,
            backbone_options=backbone_options,
        )
        self.chunk_size = chunk_size

    def build_text_metric(self) -> ExactMatch:
        """Return the share of responses that are right to the letter."""
        return ExactMatch()

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean cross-entropy of the responses' tokens."""
        summed, likely, targets = self.summed_loss(batch)
        return StepOutput(summed / max(len(targets), 1), likely, targets)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens, all of which count; packed ones as one example each."""
        batch = shape.text(self._longest)
        batch["labels"] = torch.zeros_like(batch["input_ids"])
        if shape.is_packed:
            batch["segment_ids"] = torch.ones_like(batch["input_ids"])
            batch["position_ids"] = torch.zeros_like(batch["input_ids"])
        return batch

    def summed_loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed cross-entropy of the responses' tokens, the most likely tokens, and the tokens."""
        self._check_length(batch)
        inputs = {**self.inputs(batch), "use_cache": False}
        # The hidden state of each token is to give the next one.
        positions = self.label_positions(batch)
        targets = batch["labels"][:, 1:].flatten().index_select(0, positions)
        if self.chunk_size is None:
            logits = self(**inputs).logits[:, :-1].flatten(0, 1).index_select(0, positions).float()
            return F.cross_entropy(logits, targets, reduction="sum"), logits.argmax(dim=-1), targets
        to_logits = self.checked_output_layer(batch["input_ids"])
        hidden = last_hidden_states(self.backbone, **inputs).last_hidden_state[:, :-1].flatten(0, 1)
        loss, likely = chunked_cross_entropy(
            hidden.index_select(0, positions), targets, to_logits, self._trained_output_parameters(), self.chunk_size
        )
        return loss, likely, targets

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model takes of a batch."""
        inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
        if (segment_ids := batch.get("segment_ids")) is None:
            return inputs | {"attention_mask": batch["attention_mask"]}
        return inputs | packed_inputs(self.backbone, segment_ids, batch["position_ids"])

    def _check_length(self, batch: Mapping[str, Any]) -> None:
        length = batch["input_ids"].shape[1]
        if self._longest is not None and length > self._longest and "segment_ids" in batch:
            length = int(batch["position_ids"].max()) + 1  # of the longest example in rows of several
        self.check_length(length)

    def _trained_output_parameters(self) -> list[nn.Parameter]:
        layer: nn.Module = self.backbone.get_output_embeddings()  # type: ignore[operator]
        return [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def prompts(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the tokens before each response, padded on the left, where generation has to go on from."""
        is_prompt = batch["attention_mask"].bool() & ((batch["labels"] != IGNORED).cumsum(dim=1) == 0)
        lengths = is_prompt.sum(dim=1)
        ids = right_aligned(batch["input_ids"], lengths, self.pad_token_id)
        positions = torch.arange(ids.shape[1], device=ids.device)
        return {"input_ids": ids, "attention_mask": (positions >= ids.shape[1] - lengths[:, None]).long()}


def right_aligned(sequences: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """Return the beginnings of sequences (rows, length), padded on the left.

    Example:
        >>> right_aligned(torch.tensor([[5, 6, 7], [8, 9, 9]]), torch.tensor([2, 1]), 0)
        tensor([[5, 6],
                [0, 8]])
    """
    width = int(lengths.max())
    aligned = sequences.new_full((len(sequences), width), padding)
    for row, (sequence, length) in enumerate(zip(sequences, lengths.tolist(), strict=True)):
        aligned[row, width - length :] = sequence[:length]
    return aligned
