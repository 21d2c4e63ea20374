"""What happens to a LightningModule with adapters from build to checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import BitsandbytesPrecision
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from asym_lightning.adapters import (
    adapters_by_name,
    fill_checkpoint,
    restore_checkpoint,
    trainable_parameters,
    undrawn_adapters,
    untrained_adapters,
)
from asym_lightning.adapters.files.checkpoint import RANDOM_STATE_KEY, STATE_KEY
from asym_lightning.core.ddp import leave_frozen_out_of_ddp
from asym_lightning.core.dtypes import train_in_float32
from asym_lightning.core.either_lightning import check_release, either
from asym_lightning.core.kinds import Count
from asym_lightning.core.messages import listed
from asym_lightning.core.options import CheckedArguments
from asym_lightning.core.private_names import ends_with_its_processes, trainer_of
from asym_lightning.lifecycle.backbone import named_backbone
from asym_lightning.lifecycle.batch_norms import FrozenStatistics, keep_in_evaluation
from asym_lightning.lifecycle.calls import CallsInEvaluation
from asym_lightning.lifecycle.checkpoint_file import check_states, with_plain_numbers
from asym_lightning.lifecycle.checkpoint_io import remove_unfinished_files, write_atomically
from asym_lightning.lifecycle.loops import (
    Instant,
    check_counters,
    count_as_done,
    is_epoch_unfinished,
    put_accumulation_first,
)
from asym_lightning.lifecycle.metric_states import reset_metrics
from asym_lightning.lifecycle.module_copies import (
    copy_adapted,
    leave_frozen_out,
    prepare_averages,
    put_frozen_back,
)
from asym_lightning.lifecycle.optimizers import hold_all
from asym_lightning.lifecycle.place import Place, add_places, take_place
from asym_lightning.lifecycle.promise import Promise
from asym_lightning.lifecycle.replicas import check_replicas
from asym_lightning.lifecycle.resumable_loader import make_loaders_resumable


class LifeCycle(CheckedArguments, Callback):
    """The life of a module with adapters, the same for an `AdapterModule`, which has one, and an `AdapterInjection`.

    It works through Lightning's hooks of callbacks and, where there is none at the right time, through three methods
    that its owner calls: :meth:`adapted`, :meth:`fill` and :meth:`restore`.

    | when                    | what                                                                           |
    |-------------------------|--------------------------------------------------------------------------------|
    | `setup`                 | training data become resumable, and checkpoint files whole or absent            |
    | layers have been adapted | what trains is in float32; what is frozen stays in evaluation mode and out of DDP |
    | `on_fit_start`          | an optimizer holds all that trains; processes agree                            |
    | `on_train_start`        | a resumed run goes on from its place                                            |
    | an epoch starts         | every A has to be drawn                                                         |
    | the first steps         | every adapter has to get a gradient                                             |
    | the first evaluation    | a warning names adapted layers that are not called                             |
    | every step              | what was promised trains, and what was frozen stays                             |
    | a checkpoint is written | it holds what was trained, and the place of every process                       |
    | a checkpoint is read    | it has to fit; what was trained is loaded                                       |

    Args:
        adapted_backbone_name: Dotted name of the submodule with the adapters; None means the whole module.
        check_after: Number of optimizer steps after which every adapter must have had a gradient.

    Raises:
        ValueError: If `check_after` is less than 1.
    """

    def __init__(self, adapted_backbone_name: str | None, *, check_after: Count = 1) -> None:
        super().__init__()
        self.adapted_backbone_name = adapted_backbone_name
        self.check_after = check_after
        self._first_step = 0
        self._without_gradient: set[str] | None = None
        self._place: Place | None = None
        self._instant = Instant.OTHER
        self._num_saved_optimizers = 0
        self._statistics: FrozenStatistics | None = None
        self._promise: Promise | None = None
        self._calls = CallsInEvaluation()
        self._was_adapted = False
        self._counted: set[str] = set()

    # What the owner calls

    def adapted(self, module: nn.Module) -> None:
        """Prepare a module, whose layers have been adapted or frozen, for training; a second call does nothing."""
        backbone = self._backbone(module)
        train_in_float32(module, backbone)
        keep_in_evaluation(module, backbone)
        leave_frozen_out_of_ddp(module, backbone)
        self._was_adapted = bool(adapters_by_name(backbone))
        self._promise = Promise(module, self.decides_on(module), self.trained(module).values())
        trainer = trainer_of(module) if isinstance(module, either(LightningModule)) else None
        if trainer is not None:
            copy_adapted(trainer, cast(LightningModule, module))

    def fill(self, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained, a description of the adapters, and the place of every process, and nothing else.

        Of a module whose adapters have been merged or removed all is kept: what was trained is in its weights.
        """
        if self._is_as_it_was(module):
            return
        if self._promise is not None:
            self._promise.check_values()
        fill_checkpoint(module, checkpoint)
        leave_frozen_out(module, checkpoint)
        checkpoint.update({key: with_plain_numbers(value) for key, value in checkpoint.items() if key != STATE_KEY})
        trainer = _fitting(module)
        if trainer is not None and "optimizer_states" in checkpoint:
            del checkpoint[RANDOM_STATE_KEY]  # a place has it
            add_places(checkpoint, trainer, module)

    def restore(self, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load what was trained, after checking that it is all there and fits; keep the place until training starts.

        Raises:
            ValueError: If a key is missing, unexpected or of another shape, but for the frozen backbone's, or if the
                checkpoint was written with another adapter configuration or backbone.
        """
        if self._is_as_it_was(module):
            return
        trainer = _fitting(module)
        place = None if trainer is None else take_place(checkpoint, trainer.global_rank)
        if place is not None:
            check_counters(checkpoint)
            self._num_saved_optimizers = len(checkpoint.get("optimizer_states", ()))
        restore_checkpoint(module, checkpoint)
        put_frozen_back(module, checkpoint)
        self._place = place
        if place is not None:
            self._instant = count_as_done(checkpoint)

    def decides_on(self, module: nn.Module) -> nn.Module:
        """The part of a module in which nobody else may decide what trains."""
        return self._backbone(module)

    def trained(self, module: nn.Module) -> Mapping[str, nn.Parameter]:
        """Parameters that have to be in an optimizer; what else trains is the module's affair."""
        backbone = self._backbone(module)
        return dict(trainable_parameters(backbone)) if adapters_by_name(backbone) else {}

    # Lightning's hooks

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what the adapted layers can't live with; see to data and files."""
        check_release(trainer)
        if isinstance(trainer.precision_plugin, either(BitsandbytesPrecision)):
            raise ValueError(
                "Lightning's `BitsandbytesPrecision` would quantise the heads too, which are to train, and put its "
                "layers in place of the adapted ones: leave it out and set `backbone_options.quantization` to nf4 or "
                "int8, or, in a module that has no such option, call `asym_lightning.adapters.quantize_backbone` where "
                "it builds its backbone."
            )
        if stage == TrainerFn.FITTING:
            if ends_with_its_processes(trainer.strategy.launcher):
                raise ValueError(
                    "This strategy trains in processes that end with the adapters which they trained, as `ddp_spawn`, "
                    "`ddp_fork` and `ddp_notebook` do: set `strategy='ddp'` and run a script, or in a notebook "
                    "`devices=1`."
                )
            put_accumulation_first(trainer)
            make_loaders_resumable(trainer)
            write_atomically(trainer.strategy)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that an optimizer holds all that trains and that processes agree on what does not.

        Raises:
            RuntimeError: If a trained parameter is in no optimizer and it is not clear where it belongs, or, in
                data-parallel training, if adapters or backbones differ between processes.
            ValueError: If the run that is gone on with had more optimizers, or a callback's state could not be read
                again.
        """
        check_states({callback.state_key: callback.state_dict() for callback in _callbacks(trainer)})
        if self._promise is not None:
            self._promise.watch(pl_module)
            self._promise.check_who_trains()
        num_saved, self._num_saved_optimizers = self._num_saved_optimizers, 0
        if num_saved > len(trainer.optimizers):
            raise ValueError(
                f"The checkpoint is of a run with {num_saved} optimizers, and this one has {len(trainer.optimizers)}."
            )
        if isinstance(trainer.model, DistributedDataParallel):
            check_replicas(pl_module)
        hold_all(trainer.optimizers, self.trained(pl_module))
        remove_unfinished_files(trainer)
        self._without_gradient = set()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from where a resumed run left off: only now, for what builds a model may draw random numbers too.

        Raises:
            ValueError: If a callback averages factors that another one changes.
        """
        prepare_averages(trainer, pl_module)  # some are made in `on_fit_start`
        for config in trainer.lr_scheduler_configs:  # Lightning's BatchSizeFinder changes it after they were made
            if hasattr(config.scheduler, "count_steps"):
                config.scheduler.count_steps(int(trainer.estimated_stepping_batches))
        place, self._place = self._place, None
        if place is not None and trainer.ckpt_path:
            place.go_on(trainer, pl_module, self._instant)
            self._counted = set() if is_epoch_unfinished(trainer) else set(place.counted)
        keep_in_evaluation(pl_module, self._backbone(pl_module))  # those that became SyncBatchNorm since
        self._statistics = FrozenStatistics(pl_module, self._backbone(pl_module))
        if self._promise is not None:
            self._promise.note_values()
        self._first_step = trainer.global_step

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse an A that is drawn from data and has not been by now, when every callback has started.

        Raises:
            RuntimeError: There are some; the message names them.
        """
        reset_metrics(pl_module, self._counted)  # Lightning resets those alone that were logged in this process
        self._counted = set()
        names = undrawn_adapters(self._backbone(pl_module))
        if names:
            raise RuntimeError(
                f"A of {listed([f'`{name}`' for name in names], 4)} is drawn from data and has not been yet: add "
                "CalibrateA to the Trainer's callbacks, or use a scheme whose A needs none, such as 'hB_zero_A_rand'."
            )

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let nobody have decided otherwise on what trains, or replaced what is frozen.

        Raises:
            RuntimeError: Somebody has frozen or unfrozen parameters.
        """
        if self._promise is not None:
            self._promise.check_who_trains()
        if self._statistics is not None:
            self._statistics.restore()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let nothing have written to what is frozen."""
        if self._statistics is not None:
            self._statistics.restore(look_inside=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let nothing have written to what is frozen.

        Raises:
            RuntimeError: Frozen weights have moved.
        """
        self.on_train_epoch_end(trainer, pl_module)
        if self._promise is not None:
            self._promise.check_values()
        self._release()

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Watch which adapted layers are called."""
        self._calls.begin(self._backbone(pl_module))

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Warn of adapted layers that were not."""
        self._calls.end()

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Hold nothing of the run any longer."""
        self._release()

    def _release(self) -> None:
        self._statistics = None
        self._calls.forget()
        if self._promise is not None:
            self._promise.release()

    def on_factor_freeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Expect a factor that has been frozen to stay so."""
        if self._promise is not None:
            self._promise.take_factors_as_they_are(pl_module)

    @override
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note, until the check is done, which adapters get gradients."""
        if self._without_gradient is not None:
            untrained = set(untrained_adapters(self._backbone(pl_module)))
            self._without_gradient = untrained & (self._without_gradient or untrained)

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Refuse adapters that had no gradient in the first steps.

        Raises:
            RuntimeError: There are some; the message names them.
        """
        if self._without_gradient is None or trainer.global_step < self._first_step + self.check_after:
            return
        names, self._without_gradient = sorted(self._without_gradient), None
        if names:
            raise RuntimeError(
                f"{len(names)} adapters got no gradient in {self.check_after} step(s) and would stay untrained: the "
                "model reads their layer's weight without calling the layer, or doesn't use it. Name them in `exclude` "
                f"(or raise `check_after` if they only take turns): {listed(names, 5)}."
            )

    def _is_as_it_was(self, module: nn.Module) -> bool:
        """Whether a module that was adapted has no adapters any longer, so that its checkpoints are its own affair."""
        return self._was_adapted and not adapters_by_name(self._backbone(module))

    def _backbone(self, module: nn.Module) -> nn.Module:
        return named_backbone(module, self.adapted_backbone_name)


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
    return callbacks


def _fitting(module: LightningModule) -> Trainer | None:
    """The Trainer that fits the module; None if there is none."""
    trainer = trainer_of(module)
    return trainer if trainer is not None and trainer.state.fn == TrainerFn.FITTING else None
