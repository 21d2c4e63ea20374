"""Embeddings of texts, with any Hugging Face encoder or decoder: texts of like meaning come close to one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import AutoModel

from asym_lightning.adapters import AdapterConfig
from asym_lightning.core.kinds import Count
from asym_lightning.core.options import from_plain
from asym_lightning.lifecycle.predictions import Row
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import Backbone, StepOutput
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.chunks import in_chunks
from asym_lightning.modules.heads.class_rows import with_identifiers
from asym_lightning.modules.heads.headed_module import HeadedModule
from asym_lightning.modules.metrics.regression_metrics import regression_metrics
from asym_lightning.modules.metrics.retrieval_recall import recalls
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
from asym_lightning.modules.texts.contrastive_loss import ContrastiveLoss, of_all_processes
from asym_lightning.modules.texts.sentence_folder import SentenceLayout
from asym_lightning.modules.texts.token_pooling import Pooling

SIDES = ("anchor", "positive", "negative")


class SentenceEncoder(HeadedModule):
    """Teach a model embeddings of texts, from pairs that mean the same, from triplets, or from scored pairs.

    Batches hold `anchor_input_ids` and `anchor_attention_mask` (pairs, length), the same of `positive`, of `negative`
    where there are texts that mean something else, and `scores` (pairs,) where it is known how alike they are.

    Logs `loss` and, in evaluation, by `evaluation`: `spearman` and `pearson`, correlations of cosines with the scores;
    or `recall_at_1` and so on, how often a text's own positive is among those of the set that are closest to it.
    `predict` writes `predictions.jsonl`, `export` and `merge` write folders of sentence-transformers, backbones too.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a model.
        adapter: The adapter to inject; null takes `train_backbone`, for there is no head.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter: null`.
        pooling: The tokens' `mean`, the first one (`cls`) or the `last`; null does as such a folder says, else `mean`.
        normalize: Make embeddings of length 1; null does as such a folder says, and is true elsewhere.
        loss: Of pairs and triplets; that of scored pairs is the squared error of the cosine.
        evaluation: `similarity` for scored pairs, `retrieval` for others.
        recall_at: Numbers of texts, in `retrieval`.
        chunk_size: Texts in memory at a time, for a forward pass more and the same gradients; null has all there.
        optimizer: Makes the optimizer; weight decay is switched off for biases and normalisation layers.
        scheduler: A `WarmupSchedule`, or a scheduler of `torch.optim.lr_scheduler`; null keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If a number is out of range, or there are an `adapter` and `train_backbone`.

    Example:
        >>> from transformers import BertConfig
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> (module := SentenceEncoder(AutoModel.from_config(config), AdapterConfig(rank=2))).configure_model()
        >>> module.embed(torch.ones(3, 4).long(), torch.ones(3, 4)).shape
        torch.Size([3, 8])
    """

    auto_class = AutoModel
    num_scores = 0
    predictions_file = "predictions.jsonl"

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        loss: ContrastiveLoss = ContrastiveLoss(),
        evaluation: Literal["retrieval", "similarity"] = "retrieval",
        recall_at: Sequence[Count] = (1, 5, 10),
        chunk_size: Count | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone, adapter, train_backbone, optimizer, scheduler, backbone_options)
        self._given = (pooling, normalize)
        self.contrastive: ContrastiveLoss = from_plain(ContrastiveLoss, loss)
        self.evaluation, self.recall_at, self.chunk_size = evaluation, list(recall_at), chunk_size

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model without a pooler of its own, of which nothing would be read."""
        model: Any = super().build_backbone(source)
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = None
            self._new_modules = [name for name in self._new_modules if not name.startswith("pooler.")]
        self.layout = SentenceLayout.of(source if isinstance(source, str) else None, *self._given)
        return model

    def build_metrics(self) -> MetricCollection:
        """Return correlations, or recalls."""
        return regression_metrics("spearman", "pearson") if self.evaluation == "similarity" else recalls(self.recall_at)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch, logged as `train/loss`; embeddings of training texts are not kept for metrics."""
        loss = self.step(batch).loss
        self.log("train/loss", loss, batch_size=len(batch["anchor_input_ids"]))
        return loss

    def step(self, batch: dict[str, Any]) -> StepOutput:
        """Return the loss, and cosines with scores or the embeddings of all sides (pairs, sides, width)."""
        names = [(f"{side}_input_ids", f"{side}_attention_mask") for side in SIDES]
        found = [self.embed(batch[ids], batch[mask]) for ids, mask in names if ids in batch]
        kind = "similarity" if "scores" in batch else "retrieval"
        if not self.training and kind != self.evaluation:
            raise ValueError(f"`evaluation: {self.evaluation}` does not suit the pairs of this set: set it to {kind}.")
        if kind == "similarity":
            cosines, scores = F.cosine_similarity(found[0], found[1]), batch["scores"].to(found[0].dtype)
            return StepOutput(F.mse_loss(cosines, scores), cosines.detach(), scores)
        loss = self.contrastive(found[0], *of_all_processes(self, found[1:]))
        return StepOutput(loss, together := torch.stack(found, dim=1).detach(), together[:, 0, 0])

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings of texts (texts, width)."""
        return in_chunks(self._embedded, self.chunk_size, input_ids, attention_mask)

    def _embedded(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.layout.vectors(self.run_backbone({"input_ids": ids, "attention_mask": mask})[0], mask)

    def example_batch(self, shape: BatchShape) -> dict[str, Tensor]:
        """Return pairs of rows of tokens."""
        batch = shape.text(self._longest)
        return {f"{side}_{name}": value for side in SIDES[:2] for name, value in batch.items()}

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the embedding of each text (texts, width)."""
        return self.embed(batch["input_ids"], batch["attention_mask"])

    def prediction_rows(self, prediction: Tensor, batch: dict[str, Any], identifiers: Sequence[str]) -> Sequence[Row]:
        """Return the texts' ids and their embeddings."""
        rows = [{"embedding": [round(value, 6) for value in row]} for row in prediction.float().tolist()]
        return with_identifiers(rows, batch.get("ids", identifiers))

    def write_own_files(self, folder: Path) -> None:
        """Write the files by which a folder with the model is one of sentence-transformers."""
        self.layout.write(self.backbone.config.hidden_size, folder)  # type: ignore[arg-type, union-attr]
