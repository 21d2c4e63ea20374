"""A tiny decoder that learns to follow an instruction that it has not seen."""

from __future__ import annotations

import copy
import hashlib
import inspect
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from asym_lightning.data.language.prompts import alpaca_prompt
from asym_lightning.modules import AdapterModule, InstructionTuner
from asym_lightning.modules.language.decoding import Decoding
from benchmarks import instruction_arms
from benchmarks.frozen_a.tasks.task import FOLDER, Task
from benchmarks.instruction_arms import NEW_TASK, NUM_EXAMPLES, PRETRAINING, data, fit, records
from tests.language_models import tiny_llama, word_tokenizer


class Instructions(Task):
    """Answers in a code, by a decoder that was pretrained on other questions; see :mod:`benchmarks.instruction_arms`.

    The pretrained decoder is kept in the user's cache folder: other processors would train it to other bits.
    """

    name = "instructions"
    seeds = range(3)
    rates = (3e-3, 1e-2, 3e-2, 1e-1)
    max_epochs, num_steps = 3, 189
    head_steps = 0
    val, test = "val/exact_match", "test/exact_match"
    targets = ("q", "k", "v", "o", "mlp")
    peft_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    has_head = False
    equal_rank = 4

    @cached_property
    def tokenizer(self) -> Any:
        texts = [alpaca_prompt(r["instruction"], r["input"]) for r in records((*PRETRAINING, NEW_TASK), 300, 9)]
        return word_tokenizer(texts)

    @cached_property
    def pretrained(self) -> nn.Module:
        recipe = hashlib.sha256(inspect.getsource(instruction_arms).encode()).hexdigest()[:8]
        path = FOLDER / f"instructions_{recipe}.pt"
        model = tiny_llama(len(self.tokenizer), 64, 2)
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model
        trained, *_ = fit(model, None, 3e-3, 1500, self._data(PRETRAINING, 8000, 0), 0)
        torch.save(trained.backbone.state_dict(), path)
        return trained.backbone

    def data(self, seed: int) -> LightningDataModule:
        return self._data((NEW_TASK,), NUM_EXAMPLES, seed)

    def _data(self, tasks: tuple[str, ...], count: int, seed: int) -> LightningDataModule:
        folder = FOLDER / "instructions"
        folder.mkdir(parents=True, exist_ok=True)
        return data(folder, self.tokenizer, tasks, count, seed)

    def backbone(self) -> nn.Module:
        return copy.deepcopy(self.pretrained)

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return InstructionTuner(backbone, decoding=Decoding(max_new_tokens=3), num_val_samples=None, **options)

    def forward(self, model: nn.Module, batch: Any) -> Any:
        return model(**{name: batch[name] for name in ("input_ids", "attention_mask")})
