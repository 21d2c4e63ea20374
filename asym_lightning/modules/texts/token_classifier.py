"""Labels of words, such as entities and parts of speech, with any Hugging Face encoder or decoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection
from transformers import AutoModelForTokenClassification

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Fraction, LabelNames, NotNegative
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.heads.class_loss import ClassLoss
from asym_lightning.modules.heads.class_rows import with_identifiers
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.language.label_positions import LabelPositions
from asym_lightning.modules.metrics.class_metrics import Accuracy, MacroF1
from asym_lightning.modules.metrics.entity_scores import EntityScore, TagScheme
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule


class TokenClassifier(LabelPositions, HeadedModule):
    """Label each word of a text: named entities, parts of speech, or other tags.

    Batches are dictionaries with `input_ids` and `attention_mask` (batch, length), `token_type_ids` if the model has
    them, and `labels` (batch, length): the number of its tag at the first token of each word, -100 elsewhere. For
    prediction they hold `word`, at the first token of each word its number in the text and -1 elsewhere, `words`, the
    words of each text, and `edges`, where they begin and end in it (empty where they are all there is), both as JSON.

    Logs `loss` and `accuracy` of words, and `precision`, `recall` and `f1` of entities where the tags mark some, as
    `B-PER` does, else `macro_f1` of tags. `predict` writes `predictions.jsonl` to the run's directory: the words of
    each text, their labels, and the entities, in characters of a text or in words.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a module
            with a token-classification head.
        label_names: Names of the tags by number, which are written to the model's config. None asks the data module.
        adapter: The adapter to inject; null trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        class_weights: Weight of each tag in the training loss; null weighs all words alike.
        label_smoothing: Share of the target probability spread over all tags, in [0, 1]; in training alone.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If an argument is out of range, or there is an `adapter` and `train_backbone` as well.

    Example:
        >>> from transformers import BertConfig, BertForTokenClassification
        >>> config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=8, num_labels=3)
        >>> module = TokenClassifier(BertForTokenClassification(config), adapter=AdapterConfig(rank=2))
        >>> module.configure_model()
        >>> module.logits({"input_ids": torch.tensor([[1, 2, 3, 4]])}).shape
        torch.Size([1, 4, 3])
    """

    auto_class = AutoModelForTokenClassification
    predictions_file = "predictions.jsonl"

    def __init__(
        self,
        backbone: Backbone,
        label_names: LabelNames | None = None,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        class_weights: Sequence[NotNegative] | None = None,
        label_smoothing: Fraction = 0.0,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(
            backbone=backbone,
            adapter=adapter,
            train_backbone=train_backbone,
            optimizer=optimizer,
            scheduler=scheduler,
            backbone_options=backbone_options,
        )
        self.label_names = None if label_names is None else list(map(str, label_names))
        self.class_loss = ClassLoss(class_weights, label_smoothing)

    @property
    def tags(self) -> list[str]:
        """Names of the tags by number, which are numbers where there are no names."""
        return self.label_names or [str(number) for number in range(self.num_outputs)]

    def build_metrics(self) -> MetricCollection:
        """Return the accuracy of words, and scores of entities or of tags."""
        self.class_loss.check_classes(self.num_outputs)
        accuracy = Accuracy(self.num_outputs)
        if TagScheme(self.tags).marks_entities:
            scores = {name: EntityScore(name, self.tags) for name in ("precision", "recall", "f1")}
            return MetricCollection({"accuracy": accuracy, **scores})
        return MetricCollection({"accuracy": accuracy, "macro_f1": MacroF1(self.num_outputs)})

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the cross-entropy of the words, of which there may be none."""
        logits, labels, words = self.logits(batch), batch["labels"], self.label_positions(batch)
        of_words = logits.flatten(0, 1).index_select(0, words), labels.flatten().index_select(0, words)
        loss = self.class_loss(*of_words, is_training=self.training) if len(words) else 0 * logits.sum()
        return StepOutput(loss, logits.argmax(dim=-1), labels)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return rows of tokens, each of which is a word."""
        batch = shape.text(self._longest)
        zeros = torch.zeros_like(batch["input_ids"])
        return {**batch, "token_type_ids": zeros, "labels": zeros}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the probabilities of the tags at each token (batch, length, tags)."""
        return self.logits(batch).float().softmax(dim=-1)

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return for each text its words, their labels and the entities; words that were cut off are outside of all."""
        outside = "O" if "O" in self.tags else None
        rows = []
        for row, numbers in enumerate(prediction.argmax(dim=-1)):
            words, at = json.loads(batch["words"][row]), batch["word"][row]
            found = torch.full((1, len(words)), -1, device=numbers.device)
            found[0, at[at >= 0]] = numbers[at >= 0]
            labels = [self.tags[number] if number >= 0 else outside for number in found[0].tolist()]
            edges = json.loads(batch["edges"][row]) or [(i, i + 1) for i in range(len(words))]
            rows.append({"words": words, "labels": labels, **self._entities(found, edges)})
        return with_identifiers(rows, batch.get("ids", identifiers))

    def _entities(self, found: Tensor, edges: Sequence[tuple[int, int]]) -> dict[str, list[dict[str, Any]]]:
        scheme = TagScheme(self.tags)
        if not scheme.marks_entities:
            return {}
        starts, ends, types = (of_text[0].tolist() for of_text in scheme.entities(found))
        found_at = [i for i, is_start in enumerate(starts) if is_start]
        named = [(edges[i][0], edges[ends[i]][1], scheme.types[types[i]]) for i in found_at]
        return {"entities": [dict(zip(("start", "end", "label"), entity, strict=True)) for entity in named]}
