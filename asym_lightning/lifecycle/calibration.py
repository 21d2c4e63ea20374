"""Choose A by the data of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from asym_lightning.adapters import CalibrationStatistics, adapter_layers, adapters_by_name, trainable_parameters
from asym_lightning.adapters.init.rule import InitRule
from asym_lightning.analysis.advice import LayerForecast, forecast
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics, drawn_from
from asym_lightning.core.dtensor import is_sharded, whole
from asym_lightning.core.gradients import gradients_by
from asym_lightning.core.kinds import Count, NumberOrZero, check_value
from asym_lightning.lifecycle.rehearsal import Rehearsal


@dataclass(frozen=True)
class Calibration:
    """How to look at the data of a run.

    Args:
        num_batches: Training batches to calibrate with; some hundred samples together are plenty.
        head_steps: Steps by which heads, and whatever else trains beside the adapters, are trained before gradients are
            looked at, by Adam at the rate that the run's optimizer has for them; they are undone.
        layers_at_a_time: Number of layers whose statistics are in memory together; each such group costs one more pass
            over the batches. None means all.
        keeps_rate: Scale each A so that B reads numbers as large as with a random A.

    Raises:
        ValueError: A number is out of its range.
    """

    num_batches: Count = 8
    head_steps: NumberOrZero = 0
    layers_at_a_time: Count | None = None
    keeps_rate: bool = False

    def __post_init__(self) -> None:
        kinds = {
            "num_batches": Count, "head_steps": NumberOrZero, "layers_at_a_time": Count | None, "keeps_rate": bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            check_value(name, getattr(self, name), kind)

    def drawn(
        self,
        trainer: Trainer,
        module: LightningModule,
        backbone: nn.Module,
        num_rows: Mapping[str, int] | None = None,
        taken: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Every A as its rule draws it from the run's next batches; by A's name, the same in every process.

        Args:
            trainer: In `on_train_start`, or between two steps; every process calls this.
            module: The module in training.
            backbone: What of it is adapted.
            num_rows: Of each A; None means its adapter's rank.
            taken: Directions that earlier tasks' inputs have, by layer, for adapters of a later slot.

        Raises:
            ValueError: The training step fails or gives no loss or no gradient, statistics are not finite, nothing
                trains that `head_steps` could train, or the module optimises by hand.
        """
        with self._rehearsed(trainer, module) as (batches, loss):
            statistics = self._statistics(backbone, batches, loss, taken=taken)
            # One process decides: decompositions may differ in the last bit between machines.
            drawn: dict[str, Tensor] = trainer.strategy.broadcast(
                drawn_from(backbone, statistics, num_rows, keeps_rate=self.keeps_rate)
            )
        return drawn

    def inputs(self, trainer: Trainer, module: LightningModule, backbone: nn.Module) -> dict[str, Tensor]:
        """The second moments of all adapted layers' inputs on training batches, by layer, heads as they are.

        Args:
            trainer: In training, or at its end; every process calls this.
            module: The module in training.
            backbone: What of it is adapted.

        Raises:
            ValueError: As :meth:`drawn`.
        """
        with Rehearsal(trainer, module) as rehearsal:
            batches = list(islice(rehearsal.batches(), self.num_batches))
            statistics = self._statistics(backbone, batches, lambda batch: rehearsal.loss(batch, 0))
            sites = adapter_sites(backbone)
            return {sites[key].layer: found.inputs for key, found in statistics}

    def forecasts(
        self,
        trainer: Trainer,
        module: LightningModule,
        backbone: nn.Module,
        rules: Mapping[str, InitRule],
        ranks: Sequence[int],
    ) -> dict[str, LayerForecast]:
        """What each A can explain, chosen on one half of the batches and judged by the other; see :meth:`drawn`.

        Args:
            trainer: In `on_train_start`.
            module: The module in training.
            backbone: What of it is adapted.
            rules: Init rules of A by name.
            ranks: Ranks to judge at, beside each adapter's own; those that a layer has no room for are left out.

        Raises:
            ValueError: As :meth:`drawn`; or there is one batch alone.
        """
        if self.num_batches < 2:
            raise ValueError("`num_batches` must be at least 2, half of them to choose A by and half to judge it.")
        layers = adapter_layers(backbone)
        adapters = {a.A_key: (layer, part) for layer in layers.values() for part, a in layer.adapters.items()}
        found: dict[str, LayerForecast] = {}
        with self._rehearsed(trainer, module) as (batches, loss):
            chosen_on = self._statistics(backbone, batches[::2], loss)
            seen_on = self._statistics(backbone, batches[1::2], loss, outputs=True)
            for (key, of_choice), (_, of_judge) in zip(chosen_on, seen_on, strict=True):
                layer, part = adapters[key]
                adapter = layer.adapters[part]
                weight = layer.adapters.A_weight(part, whole(layer.weight_matrix()))
                room = min(adapter.d_in, len(weight))
                own = sorted({rank for rank in (*ranks, adapter.rank) if rank <= room})
                found[key] = forecast(of_choice, of_judge, rules, ranks=own, name=key, seed=adapter.seed, weight=weight)
        return found

    @contextmanager
    def _rehearsed(
        self, trainer: Trainer, module: LightningModule
    ) -> Iterator[tuple[list[Any], Callable[[Any], Tensor]]]:
        """The batches to look at, and their loss under trained heads."""
        with Rehearsal(trainer, module) as rehearsal:
            batches = rehearsal.batches()
            if self.head_steps:
                self._train_heads(rehearsal, trainer, module, batches)
            yield list(islice(batches, self.num_batches)), lambda batch: rehearsal.loss(batch, 0)

    def _statistics(
        self, backbone: nn.Module, batches: Sequence[Any], loss: Callable[[Any], Tensor], **options: Any
    ) -> Iterator[tuple[str, CalibrationStatistics]]:
        sites, at_a_time = adapter_sites(backbone), self.layers_at_a_time
        return calibration_statistics(backbone, sites, batches, loss, layers_at_a_time=at_a_time, **options)

    def _train_heads(
        self, rehearsal: Rehearsal, trainer: Trainer, module: LightningModule, batches: Iterator[Any]
    ) -> None:
        factors = {id(p) for adapter in adapters_by_name(module).values() for p in adapter.parameters()}
        heads = [p for _, p in trainable_parameters(module) if id(p) not in factors]
        if not heads:
            raise ValueError(f"`head_steps` is {self.head_steps}, but nothing trains beside the adapters.")
        rehearsal.keep(heads)
        of_run = {
            id(p): rate_before_schedule(group)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        adam = torch.optim.Adam([{"params": [p], "lr": of_run[id(p)]} for p in heads if id(p) in of_run])
        for number, batch in enumerate(islice(batches, self.head_steps)):
            for parameter, gradient in zip(heads, gradients_by(rehearsal.loss(batch, number), heads), strict=True):
                is_mean = gradient is None or is_sharded(gradient)
                parameter.grad = gradient if is_mean else trainer.strategy.reduce(gradient, reduce_op="mean")
            adam.step()


def rate_before_schedule(group: Mapping[str, Any]) -> float:
    """The learning rate of an optimizer's group that a schedule, such as a warm-up, starts from."""
    return float(group.get("initial_lr", group["lr"]))
