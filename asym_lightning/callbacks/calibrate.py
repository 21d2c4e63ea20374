"""Choose A by the data of the run, before the first step."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from typing_extensions import override

from asym_lightning.adapters import AdapterConfig, adapters_by_name, reset_adapters, undrawn_adapters
from asym_lightning.adapters.files.backbone import backbone_sample, unchanged_sample
from asym_lightning.adapters.files.chosen import ChosenA, check_chosen, read_chosen
from asym_lightning.adapters.files.task_inputs import (
    TaskInputs,
    check_task_inputs,
    read_task_inputs,
    save_task_inputs,
)
from asym_lightning.adapters.init.rule import init_names, init_rule
from asym_lightning.adapters.scheme import Factor, Scheme
from asym_lightning.core.kinds import Count, FractionBelowOne, NumberOrZero
from asym_lightning.core.loggers import LoggerFanout
from asym_lightning.core.options import CheckedArguments
from asym_lightning.lifecycle.backbone import adapted_backbone
from asym_lightning.lifecycle.calibration import Calibration

DEFAULT_RULE = "whitened_gradient"


class CalibrateA(CheckedArguments, Callback):
    """Choose every A from a few batches of the run's own training data and loss, before the first optimizer step.

    Training then goes on as with any other A; a frozen one stays frozen. Calibration leaves nothing else behind: random
    states, running statistics, metrics and the order of the data are what they would have been without it.

    A checkpoint holds A, so a resumed run has the same one to the bit and calibrates nothing. Processes of a
    distributed run sum their statistics, and find what one process with the whole batches would.

    Args:
        rule: Init rule that draws from data: `whitened_gradient`, `gradient`, `inputs`, or one of your own; it takes
            the place of A's rule in the adapter's scheme. None means that of the scheme, and `whitened_gradient` if
            that one needs no data.
        num_batches: Training batches to calibrate with; some hundred samples together are plenty.
        head_steps: Steps by which heads, and whatever else trains beside the adapters, are trained before the gradients
            are looked at, by Adam at the rate that the run's optimizer has for them. They are undone: training starts
            from the heads that it would start from.
        layers_at_a_time: Number of layers whose statistics are in memory together; each such group costs one more pass
            over the batches. None means all.
        keeps_rate: Scale each A so that what B reads is as large as with a random A. The rate that suits a random A
            then suits this one; without it each rule has a rate of its own.
        file: Take the A's of this file, which `asym-lightning calibrate` wrote, with its rule, and calibrate nothing.
        tasks: File of the directions that inputs of one task after another have. With `slot: k` of the adapter, A is
            chosen orthogonal to those of the tasks before; when training ends, the file gets those of this one.
        share: Of the mean square of a task's inputs that its directions in `tasks` hold. The more, the less is
            forgotten, and the fewer are left for later tasks.

    Raises:
        ValueError: On construction, if a number is out of its range or no such rule draws from data; on start, if the
            training step fails or gives no loss or no gradient, statistics are not finite, a file does not fit, earlier
            tasks leave fewer directions than the rank, or the module optimises by hand.
        RuntimeError: On start, if there are no adapters, or those that there are were made by another rule.

    Example:
        >>> CalibrateA(num_batches=4).adapter_config(AdapterConfig(rank=4)).scheme
        'hB_zero_A_whitened_gradient'
    """

    def __init__(
        self,
        rule: str | None = None,
        *,
        num_batches: Count = 8,
        head_steps: NumberOrZero = 0,
        layers_at_a_time: Count | None = None,
        keeps_rate: bool = False,
        file: str | Path | None = None,
        tasks: str | Path | None = None,
        share: FractionBelowOne = 0.99,
    ) -> None:
        super().__init__()
        from_data = [known for known in init_names("A") if init_rule(known).needs_data]
        if rule is not None and rule not in from_data:
            raise ValueError(f"`rule` {rule!r} draws from no data; those that do are {', '.join(from_data)}.")
        if keeps_rate and file is not None:
            raise ValueError(f"`keeps_rate` scales what is chosen here, and `{file}` holds A's as they are.")
        if rule is not None and file is not None:
            raise ValueError(f"`rule` and `file` say twice how A is chosen; `{file}` names its rule itself.")
        if tasks is not None and file is not None:
            raise ValueError(f"`tasks` says beside what A is to be chosen, and `{file}` holds A's as they are.")
        self.rule, self.file = rule, file
        self.tasks, self.share = tasks, share
        self.calibration = Calibration(num_batches, head_steps, layers_at_a_time, keeps_rate)
        self.chosen: ChosenA | None = None
        self._earlier = TaskInputs()

    def adapter_config(self, config: AdapterConfig) -> AdapterConfig:
        """The configuration with the rule in its scheme; asked for before the module is adapted."""
        if config.slot and self.tasks is None:
            raise ValueError(
                f"`slot` is {config.slot}, and CalibrateA chooses A by data: name the file of earlier tasks' inputs "
                "in `tasks`."
            )
        scheme = config.resolved_scheme
        factor = Factor(self._rule_beside(scheme), scheme.A.is_trained)
        return dataclasses.replace(config, scheme=str(Scheme(factor, scheme.B)))

    def _rule_beside(self, scheme: Scheme) -> str:
        """The rule to draw by where a scheme asks for its own."""
        rule = self.rule if self.file is None else read_chosen(self.file).rule
        return rule or (scheme.A.init if scheme.A.rule.needs_data else DEFAULT_RULE)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose A, unless there is one, of a checkpoint or an earlier run."""
        backbone = adapted_backbone(trainer, pl_module)
        adapters = adapters_by_name(backbone)
        if not adapters:
            raise RuntimeError("CalibrateA finds no adapters; add AdapterInjection, or a module with an `adapter`.")
        scheme = next(iter(adapters.values())).scheme
        rule = self._rule_beside(scheme)
        if scheme.A.init != rule:
            raise RuntimeError(
                f"The module was adapted by {scheme} before CalibrateA was there to draw A by `{rule}`; let the "
                f"Trainer adapt it, or name the rule in the scheme, as in '{Scheme(Factor(rule, False), scheme.B)}'."
            )
        slot = _slot(backbone)
        if self.tasks is not None:
            self._earlier = read_task_inputs(self.tasks) if slot or Path(self.tasks).exists() else TaskInputs()
            check_task_inputs(self._earlier, slot, backbone, self.tasks)
        if not undrawn_adapters(backbone):
            return
        started = time.monotonic()
        if self.file is None:
            taken = self._earlier.before(slot) if slot else None
            factors = self.calibration.drawn(trainer, pl_module, backbone, taken=taken)
            self.chosen = ChosenA(rule, factors, dataclasses.asdict(self.calibration), backbone_sample(backbone))
        else:
            self.chosen = read_chosen(self.file)
            check_chosen(self.chosen, backbone, self.file)
        reset_adapters(backbone, statistics=self.chosen.factors)
        seconds = time.monotonic() - started
        source = f"{self.calibration.num_batches} batches" if self.file is None else f"`{self.file}`"
        rank_zero_info(
            f"{len(self.chosen.factors)} A's were chosen by {self.chosen.rule} from {source} in {seconds:.1f} s."
        )
        LoggerFanout().log(trainer, {"calibration/seconds": seconds})

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the directions of this task's inputs to the file of tasks, if there is one."""
        if self.tasks is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        backbone = adapted_backbone(trainer, pl_module)
        inputs, unchanged = self.calibration.inputs(trainer, pl_module, backbone), unchanged_sample(backbone)
        if trainer.is_global_zero:
            tasks = self._earlier.with_task(_slot(backbone), inputs, self.share, unchanged)
            save_task_inputs(tasks, self.tasks)


def _slot(backbone: nn.Module) -> int:
    return next(iter(adapters_by_name(backbone).values())).slot
