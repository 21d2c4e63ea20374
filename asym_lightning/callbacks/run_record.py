"""Write down what a run came to, for tables and plots."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from typing_extensions import override

from asym_lightning.adapters import adapters_by_name, num_weights
from asym_lightning.adapters.kernels.cpu.library import cpu_kernels_in_use
from asym_lightning.adapters.surgery.quantize import quantized_layers
from asym_lightning.core.files import write_json
from asym_lightning.core.run_files import RECORD


class RunRecord(Callback):
    """Write scores, counts, time and memory of a run to `record.json` in its directory.

    `asym-lightning report` reads it beside the run's `config.yaml` and `metrics.csv`. The file appears whole when fit
    ends, and again when a test ends. Of a `test` without a fit it has `command`, `checkpoint` and `metrics`.

    | key                        | what it is                                                                    |
    |----------------------------|-------------------------------------------------------------------------------|
    | `command`                  | `fit`, or `test` where nothing was trained                                     |
    | `checkpoint`               | the best checkpoint of a fit, or that which was tested; null if there is none  |
    | `monitor`, `mode`          | the metric that chose the checkpoint, and whether more or less of it is better |
    | `validation`               | that metric at the checkpoint; the last one where nothing was monitored        |
    | `metrics`                  | all metrics at the end, those of the test included                            |
    | `trained`, `total`         | parameters, each counted once; of a quantised backbone, those before packing   |
    | `trained_A`, `trained_B`   | those in the factors; the rest is in heads or, in full fine-tuning, the backbone |
    | `ranks`                    | rank of each adapter at the end                                               |
    | `seconds`, `steps`         | time and optimizer steps of fit                                               |
    | `cpu_seconds`              | what of a core this process used in fit, which others on a machine leave alone |
    | `cpu_kernels`              | by what adapters were computed on a CPU: `C (gcc 12.2.0)` or `torch`; else null    |
    | `saved_bytes`              | what the first step kept for its backward pass, without parameters; null if sharded |
    | `peak_bytes`               | peak of a GPU's allocator; null on a CPU                                      |

    Example:
        >>> RunRecord().record
        {}
    """

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}
        self._started = self._cpu_started = 0.0
        self._saved: _SavedBytes | None = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count, in the first step, what the forward pass keeps."""
        if trainer.global_step == 0 and "saved_bytes" not in self.record and self._saved is None:
            self._saved = _SavedBytes.of(pl_module)

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Stop counting."""
        if self._saved is not None:
            self.record["saved_bytes"] = self._stop_counting()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Stop counting in a step that had no backward pass."""
        self._stop_counting()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop counting: the hooks would outlive the run."""
        self._stop_counting()

    def _stop_counting(self) -> int | None:
        saved, self._saved = self._saved, None
        return None if saved is None else saved.stop()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write all but the test's metrics."""
        adapters = adapters_by_name(pl_module)
        checkpoint: Any = trainer.checkpoint_callback
        monitor = getattr(checkpoint, "monitor", None)
        best = getattr(checkpoint, "best_model_score", None)
        self.record |= {
            "command": "fit",
            "checkpoint": getattr(checkpoint, "best_model_path", "") or None,
            "monitor": monitor,
            "mode": getattr(checkpoint, "mode", "max") if monitor else None,
            "validation": None if best is None else float(best),
            "metrics": _numbers(trainer.callback_metrics),
            "trained": _count(p for p in pl_module.parameters() if p.requires_grad),
            "total": _count(pl_module.parameters()),
            "trained_A": _count({adapter.factor_A for adapter in adapters.values() if adapter.factor_A.requires_grad}),
            "trained_B": _count({adapter.factor_B for adapter in adapters.values() if adapter.factor_B.requires_grad}),
            "ranks": {name: adapter.rank for name, adapter in adapters.items()},
            "seconds": time.monotonic() - self._started,
            "cpu_seconds": time.process_time() - self._cpu_started,
            "steps": trainer.global_step,
            "peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
            "cpu_kernels": cpu_kernels_in_use(),
            "device": str(trainer.strategy.root_device),
        }
        self._write(trainer.log_dir)

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the test's metrics."""
        if "command" not in self.record:
            self.record |= {"command": "test", "checkpoint": _path(trainer.ckpt_path)}
        self.record["metrics"] = {**self.record.get("metrics", {}), **_numbers(trainer.callback_metrics)}
        self._write(trainer.log_dir)

    @rank_zero_only
    def _write(self, directory: str | None) -> None:  # of the Trainer, which all processes must ask for it
        if directory is None:
            return
        write_json(Path(directory, RECORD), self.record)


class _SavedBytes:
    """Count the bytes that autograd keeps: each storage once, parameters and buffers not at all."""

    def __init__(self, kept_anyway: Iterable[Tensor]) -> None:
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in kept_anyway}
        self._bytes = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)

    @classmethod
    def of(cls, module: torch.nn.Module) -> _SavedBytes | None:
        """Start to count, unless some parameters are sharded: those gathered could not be told from activations."""
        kept_anyway = [*module.parameters(), *module.buffers()]
        quantized = {id(layer.weight) for _, layer in quantized_layers(module)}  # of a class of their own, and whole
        if any(
            type(tensor) not in (Tensor, torch.nn.Parameter) and id(tensor) not in quantized for tensor in kept_anyway
        ):
            return None
        saved = cls(kept_anyway)
        saved._hooks.__enter__()
        return saved

    def stop(self) -> int:
        self._hooks.__exit__()
        return self._bytes

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._bytes += storage.nbytes()
        # A result that its own node keeps would otherwise keep the node, and a graph without a backward pass for ever.
        return tensor.detach()


def _path(checkpoint: str | Path | None) -> str | None:
    return None if checkpoint is None else str(checkpoint)


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(map(num_weights, parameters))


def _numbers(metrics: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
