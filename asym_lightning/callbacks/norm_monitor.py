"""Watch the norms of B and of the update while training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from asym_lightning.adapters import LowRankAdapter, adapter_layers, adapters_by_name
from asym_lightning.analysis.spectrum import (
    Factors,
    adapter_spectra,
    effective_rank,
    factors,
    orthonormal_A,
    stable_rank,
    to_cpu,
    update_changes,
)
from asym_lightning.core.dtensor import any_sharded, piece, sharded_like, whole
from asym_lightning.core.kinds import Count
from asym_lightning.core.loggers import LoggerFanout
from asym_lightning.core.norms_file import STATISTICS, TOTAL, NormsFile
from asym_lightning.core.options import CheckedArguments
from asym_lightning.core.run_files import NORMS
from asym_lightning.lifecycle.backbone import adapted_backbone


class BNormMonitor(CheckedArguments, Callback):
    """Log exact statistics of every adapter, `b_norm/<adapter>/<statistic>`, and in total, `b_norm/total/<statistic>`.

    | statistic          | of one adapter                                        | in total                        |
    |--------------------|-------------------------------------------------------|---------------------------------|
    | `B_frobenius`      | Frobenius norm of B                                   | root of the sum of squares      |
    | `B_spectral`       | largest singular value of B                           | largest                         |
    | `update_frobenius` | Frobenius norm of s B A                               | root of the sum of squares      |
    | `update_spectral`  | largest singular value of s B A                       | largest                         |
    | `stable_rank`      | squared Frobenius over squared spectral norm          | mean                            |
    | `effective_rank`   | exponential entropy of the singular values' shares    | mean                            |
    | `relative_norm`    | Frobenius norm of s B A over that of the weight       | ratio of the totals             |
    | `B_gradient`       | Frobenius norm of B's gradient (before clipping)      | root of the sum of squares      |
    | `change`           | Frobenius norm of the update's change since last time | root of the sum of squares      |

    Nothing of the weight's size is formed; all numbers of a log come to the host in one transfer. They go to every
    logger of the Trainer, singular values as histograms where a logger shows them, and to a CSV file, one row an
    adapter, that plots are made from. A logger that fails is warned of and left out.

    Args:
        every_n_steps: Optimizer steps between two logs.
        file: Path of the CSV file; None means `b_norms.csv` in the run's directory, an empty string no file.
        histograms: Log the singular values.

    Raises:
        ValueError: If `every_n_steps` is less than 1.

    Example:
        >>> BNormMonitor(every_n_steps=50).every_n_steps
        50
    """

    def __init__(self, every_n_steps: Count = 50, *, file: str | Path | None = None, histograms: bool = True) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.file = file
        self.histograms = histograms
        self._loggers = LoggerFanout()
        self._file: NormsFile | None = None
        self._adapters: dict[str, LowRankAdapter] = {}
        self._orthonormal: set[str] = set()
        self._weight_norms: dict[str, float] = {}
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[str, Factors] = {}
        self._last_logged = 0

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit; a checkpoint is loaded after this."""
        self._before, self._orthonormal, self._gradients = {}, set(), {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the measures that stay: the weights' norms, and which A are orthonormal for good."""
        model = adapted_backbone(trainer, pl_module)
        # One process has all that it takes, unless each holds a shard of it.
        if not (trainer.is_global_zero or any_sharded(model)):
            return
        self._loggers = LoggerFanout()
        self._adapters = adapters_by_name(model)
        self._weight_norms = _weight_norms(model)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the present updates for those that the first change is counted from, and drop rows of a lost future."""
        self._last_logged = trainer.global_step
        if not self._before:
            # A frozen A stays orthonormal: changes of rank rotate it or add orthonormal rows.
            frozen = {name: adapter for name, adapter in self._adapters.items() if not adapter.factor_A.requires_grad}
            self._orthonormal = orthonormal_A(frozen)
            self._before = {name: factors(adapter) for name, adapter in self._adapters.items()}
        else:  # as a checkpoint had them, whole
            self._before = {
                name: Factors(*map(sharded_like, self._before[name], (adapter.factor_A, adapter.factor_B)))
                for name, adapter in self._adapters.items()
            }
        path = self.path(trainer)  # on all processes: the Trainer sends its directory to them
        if trainer.is_global_zero and path:
            self._file = NormsFile(path)
            self._file.drop_rows_after(trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer, *args: Any
    ) -> None:
        """Note the gradients of B, if the step that is about to be taken will be logged."""
        if self._is_due(trainer.global_step + 1):
            for name, adapter in self._adapters.items():
                if adapter.factor_B.grad is not None:
                    gradient = piece(adapter.factor_B.grad, 0)
                    self._gradients[name] = gradient.summed(gradient.local.square().sum()).sqrt()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Log, if due."""
        if self._adapters and self._is_due(trainer.global_step):
            self._last_logged = trainer.global_step
            self.write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What the next change is counted from, and which A count as orthonormal."""
        before = {name: [whole(A), whole(B)] for name, (A, B) in self._before.items()}
        return {"before": before, "orthonormal": sorted(self._orthonormal)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._before = {name: Factors(A, B) for name, (A, B) in state_dict["before"].items()}
        self._orthonormal = set(state_dict["orthonormal"])

    # Parts

    def path(self, trainer: Trainer) -> Path | None:
        """Where the rows go, or None if they go nowhere."""
        if self.file is not None:
            return Path(self.file) if str(self.file) else None
        directory = trainer.log_dir
        return Path(directory, NORMS) if directory else None

    def write(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """Measure every adapter and write it everywhere; return the statistics by adapter and `total`."""
        statistics, spectra = self._measure()
        metrics = {
            f"b_norm/{name}/{statistic}": value for name, row in statistics.items() for statistic, value in row.items()
        }
        histograms = {f"b_norm/{name}/singular_values": values for name, values in spectra.items()}
        self._loggers.log(trainer, metrics, histograms if self.histograms else None)
        if self._file:
            self._file.append(trainer.global_step, trainer.current_epoch, statistics, spectra)
        return statistics

    @torch.no_grad()
    def _measure(self) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
        adapters = self._adapters
        on_device = adapter_spectra(adapters, self._orthonormal)
        changes = update_changes(adapters, self._before)
        vectors: list[Tensor] = []
        for name, adapter in adapters.items():
            gradient = self._gradients.get(name, torch.tensor(math.nan, device=adapter.factor_B.device))
            vectors += [on_device[name].B, on_device[name].update, gradient.reshape(1), changes[name].reshape(1)]
        numbers = iter(to_cpu(vectors))
        statistics: dict[str, dict[str, float]] = {}
        spectra: dict[str, list[float]] = {}
        for name in adapters:
            of_B, of_update, gradient, change = (next(numbers) for _ in range(4))
            spectra[name] = of_update.tolist()
            values = (
                float(of_B.norm()),
                float(of_B[0]),
                float(of_update.norm()),
                float(of_update[0]),
                stable_rank(of_update),
                effective_rank(of_update),
                float(of_update.norm()) / self._weight_norms[name],
                float(gradient),
                float(change),
            )
            statistics[name] = dict(zip(STATISTICS, values, strict=True))
        statistics[TOTAL] = self._totals(statistics)
        self._before = {name: factors(adapter) for name, adapter in adapters.items()}
        self._gradients = {}
        return statistics, spectra

    def _totals(self, rows: dict[str, dict[str, float]]) -> dict[str, float]:
        def of(statistic: str) -> list[float]:
            return [row[statistic] for row in rows.values()]

        totals = {name: math.hypot(*of(name)) for name in STATISTICS}
        totals |= {name: max(of(name)) for name in ("B_spectral", "update_spectral")}
        totals |= {name: sum(of(name)) / len(rows) for name in ("stable_rank", "effective_rank")}
        totals["relative_norm"] = totals["update_frobenius"] / math.hypot(*self._weight_norms.values())
        return totals

    def _is_due(self, step: int) -> bool:
        return step // self.every_n_steps > self._last_logged // self.every_n_steps


@torch.no_grad()
def _weight_norms(model: nn.Module) -> dict[str, float]:
    """Frobenius norm of the rows of the weight that each adapter updates."""
    norms: dict[str, Tensor] = {}
    for layer_name, layer in adapter_layers(model).items():
        weight = layer.weight_matrix().detach()
        dtype = torch.promote_types(weight.dtype, torch.float32)
        row_norms = whole(torch.linalg.vector_norm(weight, dim=1, dtype=dtype))
        for slice_name, rows in layer.adapters.rows.items():
            norms[f"{layer_name}.{slice_name}"] = rows.take(row_norms[:, None], 0).norm().reshape(1)
    # A weight of zeros has no ratio to it.
    return {n: float(v) or math.nan for n, v in zip(norms, to_cpu(list(norms.values())), strict=True)}
