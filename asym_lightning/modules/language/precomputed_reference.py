"""What the reference model makes of the pairs of a run, computed once and kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from asym_lightning.adapters import adapter_layers
from asym_lightning.core.ddp import from_all_processes
from asym_lightning.core.dtensor import any_sharded
from asym_lightning.core.files import atomic_file
from asym_lightning.core.private_names import trainer_of
from asym_lightning.modules.language.language_module import LanguageModule
from asym_lightning.modules.language.reference_model import as_reference
from asym_lightning.modules.texts.answer_tokens import SIDES, AnswerTokens

Array = npt.NDArray[Any]


class PrecomputedReference(LanguageModule):
    """Asks the reference model before training begins, so that no step has to.

    Batches then hold the sums of both sides (pairs,), under names that only this model looks for. They are kept beside
    the tokenised rows, under the hash of all that they depend on: weights without adapters, tokens and precision. For
    another set or another model they are computed anew.

    Attributes:
        precompute_reference: Whether it does so.
    """

    precompute_reference = False
    _fields: Sequence[str] = ()

    @abstractmethod
    def answer_sums(self, answers: AnswerTokens) -> Tensor:
        """Return the log-probabilities of answers, summed over their tokens (rows,)."""

    def reference_sums(self, batch: Any, answers: AnswerTokens) -> Sequence[Tensor]:
        """Return what the reference makes of the chosen and of the rejected answers of a batch (pairs,) each."""
        if self._fields and all(field in batch for field in self._fields):
            return [batch[field] for field in self._fields]
        with as_reference(self.backbone):
            return self.answer_sums(answers).chunk(2)

    @torch.no_grad()
    def mean_ratio(self, answers: AnswerTokens) -> Tensor:
        """Return the mean over all processes of how much more likely answers are than by the reference; at least 0."""
        sums = self.answer_sums(answers)
        with as_reference(self.backbone):
            ratios = sums - self.answer_sums(answers)
        return (ratios if trainer_of(self) is None else torch.as_tensor(self.all_gather(ratios))).mean().clamp(min=0)

    def on_fit_start(self) -> None:
        """Ask the reference model about all pairs, or read what it said in an earlier run.

        Raises:
            ValueError: If the data is not that of a `PreferenceDataModule`, or parameters are sharded.
        """
        if not self.precompute_reference:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "padded_loader"):
            raise ValueError("`precompute_reference: true` takes a `PreferenceDataModule`, whose rows have numbers.")
        if any_sharded(self.backbone):
            raise ValueError("`precompute_reference: true` is not known for sharded parameters: set it to false.")
        of_model = _fingerprint(self.backbone, f"{self.trainer.precision} {self.device.type}")
        self._fields = [f"{side}_reference_{of_model}" for side in SIDES]
        for split in ("train", "val"):
            if split in data.rows:
                sums = self._known_or_computed(data, data.rows[split], of_model)
                numbers = {**data.rows[split].numbers, **dict(zip(self._fields, sums, strict=True))}
                data.rows[split] = dataclasses.replace(data.rows[split], numbers=numbers, file=None)

    def _known_or_computed(self, data: Any, rows: Any, of_model: str) -> Array:
        digest = hashlib.sha256(of_model.encode())
        for name, sequences in sorted(rows.sequences.items()):
            digest.update(name.encode())
            digest.update(sequences.ends.tobytes())
            digest.update(sequences.values.tobytes())
        path = Path(data.cache_dir) / f"{digest.hexdigest()[:32]}.reference.npy"
        known: Array | None = self.trainer.strategy.broadcast(_read(path, len(rows)))  # one process decides for all
        if known is not None:
            return known
        rank_zero_info(f"reference      asked about {len(rows):,} pairs")
        sums = np.empty((len(SIDES), len(rows)), np.float32)
        for numbers, of_rows in from_all_processes(self._computed(data, rows)):
            sums[:, numbers] = of_rows
        if self.trainer.is_global_zero:
            with atomic_file(path) as staging, staging.open("wb") as file:
                np.save(file, sums)
        return sums

    def _computed(self, data: Any, rows: Any) -> tuple[Array, Array]:
        """Numbers of this process' share of the rows, and their sums by side."""
        order = np.argsort(-rows.lengths(), kind="stable")[self.trainer.global_rank :: self.trainer.world_size]
        found = [np.empty((len(SIDES), 0), np.float32)]
        with self.trainer.precision_plugin.val_step_context(), as_reference(self.backbone):
            for batch in data.padded_loader(rows, sampler=order.tolist()):
                answers = self.trainer.strategy.batch_to_device(AnswerTokens.of_pairs(batch), self.device)
                found.append(self.answer_sums(answers).float().view(len(SIDES), -1).cpu().numpy())
        return order, np.concatenate(found, axis=1)


def _fingerprint(backbone: nn.Module, how: str) -> str:
    """Hash of a model's weights and of its config, without its adapters, and of how it computes."""
    adapters = [layer.adapters.state_dict(keep_vars=True) for layer in adapter_layers(backbone).values()]
    of_adapters = {id(tensor) for of_layer in adapters for tensor in of_layer.values()}
    digest = hashlib.sha256(f"{how} {getattr(backbone, 'config', '')}".encode())
    for name, tensor in backbone.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in of_adapters:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, num_rows: int) -> Array | None:
    try:
        sums: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return sums if sums.shape == (len(SIDES), num_rows) else None
