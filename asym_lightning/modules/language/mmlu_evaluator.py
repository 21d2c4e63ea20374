"""Multiple choice with any causal language model: MMLU."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from asym_lightning.adapters import AdapterConfig, load_adapters, quantize_backbone
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.files import write_json
from asym_lightning.core.tokens import longest_sequence
from asym_lightning.modules.backbone_options import BackboneOptions
from asym_lightning.modules.base import AdapterModule, StepOutput
from asym_lightning.modules.language.language_model import (
    check_output_layer,
    create_language_model,
    last_hidden_states,
    output_layer,
)
from asym_lightning.modules.language.mmlu_report import MMLUReport


class MMLUEvaluator(AdapterModule):
    """Answer the questions of `MMLUDataModule` by the letter with the greatest log-probability at the next position.

    For `lightning test`. Weights are those of the backbone; on top come those of a checkpoint of `InstructionTuner`
    (`--ckpt_path`, with the same `backbone` and `adapter`), or an adapter directory (`adapter_directory`).

    What the prompts of a subject have in common is read once and its keys and values are kept; each batch reads only
    the rest. Log-probabilities are those of whole prompts read one by one, but for rounding.

    Logs `test/accuracy` over all questions, `test/<category>/accuracy` and `test/<subject>/accuracy`; prints the table
    and writes it to `mmlu.json` in the run's directory.

    Args:
        backbone: Name on the hub, local folder with `config.json` and, unless random ones will do, weights, or a
            decoder.
        adapter: The adapter that a checkpoint was trained with; null for a backbone as it is.
        adapter_directory: Folder of a saved adapter, of this package or of `peft`; needs `adapter: null`.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and an `adapter_directory` as well.

    Example:
        >>> MMLUEvaluator("huggyllama/llama-7b", adapter_directory="runs/alpaca/version_0/adapter").adapter_directory
        'runs/alpaca/version_0/adapter'
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        adapter: AdapterConfig | None = None,
        adapter_directory: str | Path | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__(backbone=backbone, adapter=adapter, backbone_options=backbone_options)
        if adapter is not None and adapter_directory is not None:
            raise ValueError("`adapter` and `adapter_directory` are two ways to say the same: give one of them.")
        self.adapter_directory = adapter_directory
        self.answers = Answers()
        self._prefix: tuple[int, Any] | None = None

    def build_backbone(self, source: str | nn.Module) -> nn.Module:
        """Build the decoder, with the adapter of `adapter_directory` if there is one."""
        model = create_language_model(source, "causal", self.build_options) if isinstance(source, str) else source
        if self.adapter_directory is not None:
            if (quantization := self.backbone_options.quantization) is not None:
                quantize_backbone(model, quantization, find_heads(model, self.heads(model)))
            load_adapters(model, self.adapter_directory)
        self._longest = longest_sequence(getattr(model, "config", None))
        base: Any = model.base_model
        self._takes_positions = "position_ids" in inspect.signature(base.forward).parameters
        return model

    def build_metrics(self) -> MetricCollection:
        """Return none: the answers of all processes are counted at the end."""
        return MetricCollection({})

    def step(self, batch: Any) -> StepOutput:
        """Refuse: there is nothing to train."""
        raise RuntimeError("`MMLUEvaluator` is for `test` only: tune with `InstructionTuner`.")

    # Scoring

    def on_test_epoch_start(self) -> None:
        """Check that the model is one that can be scored."""
        self.answers.reset()
        self._prefix = None
        check_output_layer(self.backbone, torch.zeros(1, 4, dtype=torch.long, device=self.device))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Answer a batch of questions of one subject."""
        self.answers.update(batch["row"], self.predicted_letters(batch) == batch["answer"])

    def predicted_letters(self, batch: dict[str, Any]) -> Tensor:
        """Return the number of the letter that the model says (batch,); -1 where it says something else."""
        log_probs = self.next_log_probs(batch)
        ids, letters = batch["letter_ids"], batch["letter_of_id"]
        if not batch["is_greedy"]:  # which is the most likely of the four
            return letters[log_probs[:, ids].argmax(dim=-1)]
        greedy = log_probs.argmax(dim=-1, keepdim=True)
        is_letter = greedy == ids
        return torch.where(is_letter.any(dim=-1), letters[is_letter.int().argmax(dim=-1)], -1)

    @torch.no_grad()
    def next_log_probs(self, batch: dict[str, Any]) -> Tensor:
        """Return the log-probabilities (batch, vocabulary) of the token after each prompt.

        Raises:
            ValueError: If a prompt is longer than the model allows.
        """
        prefix, input_ids, mask = batch["prefix"], batch["input_ids"], batch["attention_mask"]
        length = len(prefix) + input_ids.shape[1]
        if self._longest is not None and length > self._longest:
            raise ValueError(
                f"a prompt has {length} tokens, but the backbone allows {self._longest}: set the data module's "
                "`max_length` to at most that, and shots are dropped from prompts that are too long."
            )
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask, "use_cache": False}
        if len(prefix):
            inputs["past_key_values"] = self._cache_of(batch["group"], prefix, len(input_ids))
            inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), len(prefix)), mask], dim=1)
            inputs["use_cache"] = True
            if self._takes_positions:
                positions = torch.arange(len(prefix), length, device=input_ids.device)
                inputs["position_ids"] = positions.expand(len(input_ids), -1)
        hidden = last_hidden_states(self.backbone, **inputs).last_hidden_state
        last = mask.sum(dim=1) - 1
        logits = output_layer(self.backbone)(hidden[torch.arange(len(hidden)), last])
        return logits.float().log_softmax(dim=-1)

    def _cache_of(self, group: int, prefix: Tensor, batch_size: int) -> Any:
        """Return the keys and values of a prefix for each row of a batch; the model adds to them, hence a copy."""
        if self._prefix is None or self._prefix[0] != group:
            output = last_hidden_states(self.backbone, input_ids=prefix[None], use_cache=True)
            self._prefix = (group, output.past_key_values)
        cache = copy.deepcopy(self._prefix[1])
        cache.batch_repeat_interleave(batch_size)
        return cache

    # Results

    def on_test_epoch_end(self) -> None:
        """Log, print and write the results."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = data.rows["test"]
        subjects = [rows.facts["subjects"][number] for number in rows.numbers["subject"]]
        report = MMLUReport.of(
            ((subjects[row], is_right) for row, is_right in self.answers.compute().items()), data.num_dropped
        )
        values = {"test/accuracy": report.overall.accuracy}
        for name, tally in {**report.categories(), **report.subjects}.items():
            values[f"test/{name}/accuracy"] = tally.accuracy
        self.log_dict(values, sync_dist=True)  # the same in all processes by now
        self._publish(report, self.run_directory / "mmlu.json")
        self._prefix = None

    @rank_zero_only
    def _publish(self, report: MMLUReport, path: Path) -> None:
        write_json(path, report.to_dict())
        print(f"{report}\nresults    {path}")


class Answers(Metric):
    """Which rows were answered right, in all processes; a row that two of them were given counts once.

    >>> answers = Answers()
    >>> answers.update(torch.tensor([4, 2]), torch.tensor([True, False]))
    >>> answers.update(torch.tensor([4]), torch.tensor([True]))
    >>> answers.compute()
    {2: False, 4: True}
    """

    full_state_update = False
    rows: list[Tensor]
    is_right: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("is_right", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor, is_right: Tensor) -> None:
        """Add answers."""
        self.rows.append(rows)
        self.is_right.append(is_right.to(torch.uint8))

    def compute(self) -> dict[int, bool]:
        """Return whether the answer is right, by row."""
        rows, is_right = (torch.cat(s) if isinstance(s, list) else s for s in (self.rows, self.is_right))
        return dict(sorted((int(row), bool(right)) for row, right in zip(rows, is_right, strict=True)))
