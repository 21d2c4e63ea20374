"""Preference tuning of any Hugging Face decoder: DPO, IPO, KTO, ORPO and SimPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count, NotNegative, Positive
from asym_lightning.core.tokens import IGNORED
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_rows import with_identifiers
from asym_lightning.modules.language.language_model import last_hidden_states
from asym_lightning.modules.language.precomputed_reference import PrecomputedReference
from asym_lightning.modules.language.preference_loss import Answers, LossName, Pairs, PreferenceLoss
from asym_lightning.modules.language.reference_model import check_is_reference
from asym_lightning.modules.language.token_log_probabilities import token_log_probabilities
from asym_lightning.modules.metrics.preference_metrics import preference_metrics
from asym_lightning.modules.prepared_batches import PreparedBatches
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
from asym_lightning.modules.texts.answer_tokens import SIDES, AnswerTokens, PairTokens

TOKENS = "answer_tokens"


class PreferenceTuner(PreparedBatches, PrecomputedReference):
    """Teach a decoder which of two answers is preferred, where the reference is the same model with its adapters off.

    Batches hold `chosen_input_ids`, `chosen_attention_mask` and `chosen_labels` (pairs, length), answers' tokens and
    -100 elsewhere, and the same of `rejected`, padded at their ends.

    Logs `loss`, `accuracy`, the share of pairs whose chosen answer has the larger reward, `margin`, by how much it is
    larger, `chosen_reward` and `rejected_reward`. `predict` writes both rewards of each pair to `predictions.csv`.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; without it there is no reference, and `orpo` and `simpo` alone can be had.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        loss: `dpo`, `ipo`, `kto`, `orpo` or `simpo`: see `PreferenceLoss`.
        beta: How much a difference weighs; papers have 0.1, for `simpo` 2 and more.
        gamma: By how much the chosen answer has to be better, in `simpo`.
        desirable_weight: Weight of chosen answers in `kto`.
        undesirable_weight: Weight of rejected answers in `kto`.
        precompute_reference: Ask the reference before training, once for all runs on the same pairs, and not each step.
        chunk_size: Number of positions whose logits exist at one time.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If a number is out of range, or the loss needs a reference and there is no `adapter`.

    Example:
        >>> PreferenceTuner("HuggingFaceTB/SmolLM2-135M", AdapterConfig(), loss="simpo", beta=2.0).preference.gamma
        0.5
    """

    architecture = "causal"

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        loss: LossName = "dpo",
        beta: Positive = 0.1,
        gamma: NotNegative = 0.5,
        desirable_weight: NotNegative = 1.0,
        undesirable_weight: NotNegative = 1.0,
        precompute_reference: bool = False,
        chunk_size: Count = 1024,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self.preference = PreferenceLoss(loss, beta, gamma, desirable_weight, undesirable_weight)
        self.chunk_size = chunk_size
        self.precompute_reference = precompute_reference and self.preference.needs_reference
        if self.preference.needs_reference and adapter is None:
            raise ValueError(f"`loss: {loss}` needs an `adapter`: its reference is the backbone without one.")

    def configure_model(self) -> None:
        """Build the backbone, inject the adapter, and check that without it the backbone is the reference."""
        super().configure_model()
        if self.preference.needs_reference:
            check_is_reference(self.backbone, f"`loss: {self.preference.name}`")

    def build_metrics(self) -> MetricCollection:
        """Return means over the pairs."""
        return preference_metrics()

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean loss of the pairs; the rewards are the predictions."""
        rewards = self.preference.rewards(pairs := self.pairs(batch))
        return StepOutput(self.preference.of_pairs(pairs).mean(), rewards, torch.zeros_like(rewards[:, 0]))

    def prepared(self, batch: Any) -> Any:
        """Stack both sides of a batch while it is on the CPU, unless it has been done."""
        return batch if TOKENS in batch else {**batch, TOKENS: PairTokens.of(batch, self.preference.name).checked()}

    def pairs(self, batch: Mapping[str, Tensor]) -> Pairs:
        """Return the log-probabilities of both answers of each pair."""
        made: Any = batch.get(TOKENS)
        tokens, is_answer, others = made or PairTokens.of(batch, self.preference.name)
        by_token = self._log_probabilities(tokens)  # first of all: autocast keeps the weights that a gradient has met
        sums, lengths = (by_token * is_answer).sum(dim=1), is_answer.sum(dim=1)
        chosen, rejected = map(Answers, sums.chunk(2), lengths.chunk(2))
        if not self.preference.needs_reference:
            num_tokens = (tokens.labels[:, 1:].chunk(2)[0] != IGNORED).sum()
            return Pairs(chosen, rejected, likelihood=-by_token.chunk(2)[0].sum() / num_tokens)
        before = self.reference_sums(batch, tokens)
        shift = 0.0 if others is None else self.mean_ratio(others)
        return Pairs(chosen._replace(reference=before[0]), rejected._replace(reference=before[1]), shift)

    def answer_sums(self, answers: AnswerTokens) -> Tensor:
        """Return the log-probabilities of answers, summed over their tokens (rows,)."""
        return self._log_probabilities(answers).sum(dim=1)

    def _log_probabilities(self, tokens: AnswerTokens) -> Tensor:
        """Log-probabilities of the labels from the second token on (rows, length - 1), 0 where there is none."""
        self.check_length(tokens.input_ids.shape[1])
        to_logits = self.checked_output_layer(tokens.input_ids)
        inputs: dict[str, Any] = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        hidden = last_hidden_states(self.backbone, **inputs, use_cache=False).last_hidden_state[:, :-1]
        return token_log_probabilities(hidden, tokens.labels[:, 1:], tokens.positions, to_logits, self.chunk_size)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return pairs of rows of tokens, all of which count."""
        batch = shape.text(self._longest)
        batch["labels"] = batch["input_ids"]
        return {f"{side}_{name}": value for side in SIDES for name, value in batch.items()}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the rewards of both answers (pairs, 2)."""
        return self.preference.rewards(self.pairs(batch))

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return both rewards of each pair, and by how much the chosen answer's is larger."""
        rows = [{"chosen_reward": c, "rejected_reward": r, "margin": c - r} for c, r in prediction.tolist()]
        return with_identifiers(rows, identifiers)
