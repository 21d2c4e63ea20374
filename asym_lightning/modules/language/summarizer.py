"""Summarisation with any Hugging Face encoder-decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.extras import check_installed
from asym_lightning.core.kinds import Fraction, NumberOrZero
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.generative_module import GenerativeModule
from asym_lightning.modules.language.label_positions import LabelPositions
from asym_lightning.modules.metrics.rouge import Rouge
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class Summarizer(LabelPositions, GenerativeModule):
    """Summarise with BART, Pegasus, T5 or another encoder-decoder: cross-entropy of the references, ROUGE of summaries.

    Batches are dictionaries with `input_ids` and `attention_mask` (batch, length) and `labels` (batch, length of the
    summaries), -100 where there is padding; for evaluation also the texts `source` and `reference`, whole and with
    their line breaks, and `row`.

    Logs `loss` and `token_accuracy`, and of the generated summaries `rouge1`, `rouge2`, `rougeL` and `rougeLsum` in
    [0, 1]: F1 with stems. What papers call ROUGE-L on CNN/DailyMail is `rougeLsum`. `predict` writes
    `summaries.jsonl` with `source`, `reference` and `summary`.

    The roles `q`, `k`, `v` adapt the encoder's self-attention, the decoder's self-attention and the cross-attention.
    Leave one out by `exclude`, such as `["encoder_attn.*"]` for BART's cross-attention, or name another in `targets`,
    such as `["encoder.layers.*.self_attn.q_proj"]`.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; null trains everything, which needs `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        label_smoothing: Share of the target probability spread over all tokens, in [0, 1]; in training alone.
        decoding: How summaries are generated; null means greedily, at most 64 tokens. Name it in full for scores.
        num_val_samples: Number of documents that are summarised in validation; null means all, 0 none.
        num_test_samples: The same in testing.
        use_stemmer: Compare stems in ROUGE, as papers do.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or a number is out of range.
        ModuleNotFoundError: If `rouge-score` is not installed.

    Example:
        >>> from transformers import BartConfig, BartForConditionalGeneration
        >>> config = BartConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8,
        ...     decoder_ffn_dim=8, encoder_attention_heads=2, decoder_attention_heads=2)
        >>> module = Summarizer(BartForConditionalGeneration(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> ids = torch.tensor([[0, 5, 2]])
        >>> output = module.step({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
        >>> output.predictions.shape
        torch.Size([3])
    """

    architecture = "encoder-decoder"
    sample_keys = ("source", "reference", "summary")
    predictions_file = "summaries.jsonl"

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        label_smoothing: Fraction = 0.0,
        decoding: Decoding | None = None,
        num_val_samples: NumberOrZero | None = 64,
        num_test_samples: NumberOrZero | None = None,
        use_stemmer: bool = True,
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
        check_installed("rouge_score", "Summarizer")
        self.label_smoothing = label_smoothing
        self.use_stemmer = use_stemmer

    def build_text_metric(self) -> Rouge:
        """Return ROUGE."""
        return Rouge(self.use_stemmer)

    def prompts(self, batch: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the documents."""
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean cross-entropy of the reference summaries' tokens."""
        input_ids, labels = batch["input_ids"], batch["labels"]
        self.check_length(max(input_ids.shape[1], labels.shape[1]))
        inputs = {"input_ids": input_ids, "attention_mask": batch["attention_mask"], "use_cache": False}
        shift: Any = getattr(self.backbone, "prepare_decoder_input_ids_from_labels", None)
        # With `labels` in place of it the model would compute a loss of its own, in vain.
        inputs |= {"labels": labels} if shift is None else {"decoder_input_ids": shift(labels=labels)}
        positions = self.label_positions(batch)
        logits = self(**inputs).logits.flatten(0, 1).index_select(0, positions).float()
        targets = labels.flatten().index_select(0, positions)
        smoothing = self.label_smoothing if self.training else 0.0
        return StepOutput(F.cross_entropy(logits, targets, label_smoothing=smoothing), logits.argmax(dim=-1), targets)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return source texts and summaries."""
        batch = shape.text(self._longest)
        batch["labels"] = torch.zeros(shape.known("size"), shape.known("target_length"), dtype=torch.int64)
        return batch
