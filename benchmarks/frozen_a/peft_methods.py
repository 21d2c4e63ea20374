"""Methods of `peft`, on the same backbone, head, batches and loop as our arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from asym_lightning.adapters.targets.heads import find_heads

_WRAPPER = "peft_model"


@dataclass(frozen=True)
class PeftMethod:
    """One method.

    Args:
        config: Name of its configuration's class in `peft`.
        options: Of that configuration, beside rank, scale and targets.
        freezes_A: Train by `peft`'s LoRA-FA optimizer, which freezes A.
        adapts_convolutions: It takes them too; those that do not raise errors of their own.
    """

    config: str = "LoraConfig"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    freezes_A: bool = False
    adapts_convolutions: bool = False

    def adapted(
        self,
        model: nn.Module,
        rank: int,
        targets: Sequence[str],
        loader: DataLoader,
        forward: Callable[[nn.Module, Any], Any],
    ) -> nn.Module:
        """The model with `peft`'s layers in it, of which those and its heads train.

        Args:
            model: The backbone.
            rank: Of the adapters.
            targets: Suffixes of layers.
            loader: Training data, which EVA starts from.
            forward: Runs the model on a batch.
        """
        import peft

        heads = [model.get_submodule(name) for name in find_heads(model, None)]
        options: dict[str, Any] = {"r": rank, "target_modules": list(targets), **self.options}
        if self.config == "LoraConfig":
            options["lora_alpha"] = 2 * rank
        is_eva = options.get("init_lora_weights") == "eva"
        if is_eva:
            options["eva_config"] = peft.EvaConfig(rho=1.0)
        adapted = peft.get_peft_model(model, getattr(peft, self.config)(**options))
        if is_eva:
            peft.initialize_lora_eva_weights(
                adapted,
                dataloader=loader,
                forward_fn=forward,
                prepare_model_inputs_fn=None,
                prepare_layer_inputs_fn=None,
                show_progress_bar=False,
            )
        for head in heads:
            head.requires_grad_(True)
        if self.freezes_A:
            for name, parameter in adapted.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and "lora_A" not in name)
        backbone: nn.Module = adapted.get_base_model()  # with the names that its host knows
        vars(backbone)[_WRAPPER] = adapted  # no submodule, for the backbone is one of it
        return backbone

    def optimizer(self, model: nn.Module, rank: int, rate: float) -> Callable[[Any], torch.optim.Optimizer]:
        """What makes the optimizer of a model that was adapted."""
        if not self.freezes_A:
            return lambda groups: torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)
        from peft.optimizers import create_lorafa_optimizer

        return lambda groups: create_lorafa_optimizer(vars(model)[_WRAPPER], r=rank, lora_alpha=2 * rank, lr=rate)
