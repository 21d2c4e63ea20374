"""Answers to questions that stand in a text, with any Hugging Face encoder or decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForQuestionAnswering

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.metrics.answer_scores import AnswerScore
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
from asym_lightning.modules.texts.answer_spans import best_spans


class QuestionAnswerer(HeadedModule):
    """Find the answer to a question in a text, or that there is none.

    Batches are those of `QuestionAnsweringDataModule`: windows of texts after their questions, and in evaluation all
    windows of each question. The answer is the best span of all windows.

    Logs `loss`, `exact_match` and `f1`, as SQuAD's script has them, but in [0, 1]; in training they compare tokens of
    windows. `predict` writes `answers.jsonl` to the run's directory, with the id, the question, the answer, where it
    begins, its score (how much its logits exceed those of there being none), and the known answers as `targets`.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with a question-answering head.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        longest_answer: Longest answer, in tokens.
        least_score: Score below which there is no answer, 0 for SQuAD 2.0; null gives each question an answer.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If a number is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> from transformers import BertConfig
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> module = QuestionAnswerer(AutoModelForQuestionAnswering.from_config(config), AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module(input_ids=torch.ones(3, 4).long()).start_logits.shape
        torch.Size([3, 4])
    """

    auto_class = AutoModelForQuestionAnswering
    predictions_file = "answers.jsonl"
    num_scores = 2

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        longest_answer: Count = 30,
        least_score: float | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self.longest_answer = longest_answer
        self.least_score = least_score

    def build_metrics(self) -> MetricCollection:
        """Return exact match and F1."""
        return MetricCollection(
            {"exact_match": AnswerScore("exact_match"), "f1": AnswerScore("f1")}, compute_groups=False
        )

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the mean cross-entropy of first and last tokens, and answers: tokens in training, else texts."""
        start, end = self._logits(batch)
        known = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)
        loss = (F.cross_entropy(start, known[:, 0]) + F.cross_entropy(end, known[:, 1])) / 2
        if "questions" not in batch:
            return StepOutput(loss, torch.stack([start.argmax(dim=1), end.argmax(dim=1)], dim=1), known)
        texts: Any = [row["answer"] for row in self._answers(batch, start, end)]
        references: Any = [question["answers"] or [] for question in batch["questions"]]
        return StepOutput(loss, texts, references)

    def _logits(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        output = self.run_backbone(batch)
        return output.start_logits.float(), output.end_logits.float()

    def _answers(self, batch: dict[str, Any], start: Tensor, end: Tensor) -> list[Row]:
        """Choose among all windows of each question."""
        spans = best_spans(start, end, batch["starts"], batch["ends"], self.longest_answer)
        windows = list(zip(*(column.tolist() for column in spans), strict=True))
        answers: list[Row] = []
        for number, question in enumerate(batch["questions"]):
            own = [window for window, of in zip(windows, batch["of"].tolist(), strict=True) if of == number]
            first, last, best, _ = max(own, key=lambda window: window[2])
            score = best - min(none for *_, none in own)
            has_answer = self.least_score is None or score > self.least_score
            answer = question["context"][first:last].strip() if has_answer else ""
            answers.append({"answer": answer, "start": first if has_answer else None, "score": score})
        return answers

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens that hold no answer."""
        batch = shape.text(self._longest)
        none = torch.zeros(shape.known("size"), dtype=torch.int64)
        return {**batch, "token_type_ids": batch["input_ids"], "start_positions": none, "end_positions": none}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> list[Row]:
        """Return the answer to each question."""
        return self._answers(batch, *self._logits(batch))

    def prediction_rows(
        self, prediction: list[Row], batch: dict[str, Any], identifiers: Sequence[str]
    ) -> Sequence[Row]:
        """Return the questions with their answers."""
        return [
            {"id": asked["identifier"], "question": asked["question"], **row}
            | ({} if asked["answers"] is None else {"targets": list(asked["answers"])})
            for asked, row in zip(batch["questions"], prediction, strict=True)
        ]
