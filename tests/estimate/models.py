"""Tiny models with a batch and a loss, made on any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
import transformers as tf
from torch import Tensor, nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters, quantize_backbone

WIDTH = 64


@dataclass
class Case:
    """A model that is trained, and how."""

    model: nn.Module
    vocabulary: int = 0
    rows: int = 6

    def batch(self) -> Any:
        if self.vocabulary:
            ids = torch.zeros(self.rows, 24, dtype=torch.int64)
            mask = torch.ones_like(ids)
            mask[:, -1] = 0  # where nothing is padded, transformers looks at the numbers and leaves the mask out
            return {"input_ids": ids, "attention_mask": mask}
        return torch.zeros(self.rows, 3, 32, 32)

    def loss(self, batch: Any) -> Tensor:
        if not self.vocabulary:
            return F.cross_entropy(self.model(batch), torch.zeros(len(batch), dtype=torch.int64))
        logits = self.model(**batch).logits
        return F.cross_entropy(logits.flatten(0, -2), torch.zeros(logits[..., 0].numel(), dtype=torch.int64))

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad])


def build(family: str, arm: str = "hB_zero_A_rand", device: str = "meta", dropout: float = 0.0, quantization: str = "",
          **changes: Any) -> Case:  # fmt: skip
    """A ViT, a RoBERTa or a Llama; `arm` is a scheme or `full`."""
    torch.manual_seed(0)
    with torch.device(device):
        if family == "vit":
            case = Case(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=WIDTH, num_heads=4,
                                          num_classes=10, **changes))  # fmt: skip
        elif family == "roberta":
            config = tf.RobertaConfig(
                vocab_size=300, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=5, **changes,
            )  # fmt: skip
            case = Case(tf.RobertaForSequenceClassification(config), 300)
        else:
            config = tf.LlamaConfig(
                vocab_size=300, hidden_size=WIDTH, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
                num_key_value_heads=2, use_cache=False, **changes,
            )  # fmt: skip
            case = Case(tf.LlamaForCausalLM(config), 300)
        if quantization:
            quantize_backbone(case.model, quantization, ["head"] if family == "vit" else [])
        if arm != "full":
            inject_adapters(case.model, AdapterConfig(arm, rank=4, targets=["all-linear"], dropout=dropout))
    case.model.train()
    return case
