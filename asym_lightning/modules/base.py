"""The LightningModule that every task builds on."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from asym_lightning.adapters import (
    AdapterConfig,
    InjectionReport,
    adapter_layers,
    freeze_backbone,
    inject_adapters,
    quantize_backbone,
    trainable_parameters,
)
from asym_lightning.adapters.surgery.quantize import DEVICES
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.dtypes import at_least_float32, let_cast_inputs
from asym_lightning.core.messages import listed
from asym_lightning.core.options import CheckedArguments, from_plain, to_plain
from asym_lightning.core.private_names import trainer_of, weight_initializer
from asym_lightning.lifecycle.callback_methods import asked_config
from asym_lightning.lifecycle.life_cycle import LifeCycle
from asym_lightning.lifecycle.promise import refuse_other_deciders
from asym_lightning.modules.backbone_options import BackboneOptions, enable_gradient_checkpointing
from asym_lightning.modules.schedule import TorchSchedule, WarmupSchedule
from asym_lightning.sharding import (
    PretrainedWeights,
    ShardingOptions,
    empty_parameters,
    materialize,
    shard_lightning_module,
)

LEFT_OUT_KEY = "left_out_of_hyper_parameters"
Stage = Literal["train", "val", "test"]
Backbone = str | nn.Module


class StepOutput(NamedTuple):
    """What a task makes of one batch.

    Attributes:
        loss: Scalar to minimise.
        predictions: What the metrics take as predictions, one a sample along the first dimension.
        targets: What the metrics compare them with.
        logits: Of each class (batch, classes), where `targets` are class numbers: `ClassScores` looks at each class and
            at the probabilities; None where there are no classes.

    Example:
        >>> StepOutput(torch.tensor(0.5), torch.tensor([1, 0]), torch.tensor([1, 1])).loss
        tensor(0.5000)
    """

    loss: Tensor
    predictions: Tensor
    targets: Tensor
    logits: Tensor | None = None


class AdapterModule(CheckedArguments, LightningModule, ABC):
    """A backbone of which only an adapter, or only a head, or everything is trained.

    Two switches choose the arm:

    | `adapter`        | `train_backbone` | what trains                       |
    |------------------|------------------|-----------------------------------|
    | an AdapterConfig | False            | the adapter's factors and the head |
    | None             | False            | the head alone                    |
    | None             | True             | everything                        |

    A task is a subclass with three methods: `build_backbone`, `build_metrics` and `step`. The rest is here: injection,
    an optimizer that holds what trains and nothing else, a schedule that knows the number of steps, logging as
    `train/loss`, `val/accuracy` and so on, and checkpoints that hold what was trained and nothing else.

    With `precision: bf16-true` a frozen backbone is in bfloat16; adapters, heads and the optimizer stay in float32.

    A frozen backbone is in training mode while training, so its dropout stays on, as it is in full
    fine-tuning: it regularises what the adapters see. Its batch normalisation is not: running statistics are a part
    of the frozen function and must not drift.

    Args:
        backbone: Name or local path of a pretrained model, which `build_backbone` understands, or a ready module.
        adapter: The adapter to inject; None trains the head alone, or everything if `train_backbone`.
        train_backbone: Train every parameter of the backbone (full fine-tuning); needs `adapter` to be None.
        optimizer: Makes the optimizer from parameter groups. Weight decay is switched off for biases and
            normalisation layers, which are the parameters with one dimension.
        scheduler: Learning-rate schedule: a `WarmupSchedule`, which moves each step and knows how many there
            are, or a scheduler of `torch.optim.lr_scheduler`, which moves each epoch, or in a `TorchSchedule` when that
            says; None keeps the rate constant.
        backbone_options: How the backbone is made.

    Raises:
        ValueError: If there is an `adapter` and `train_backbone` as well, or `train_backbone` and a quantised backbone,
            or something is asked of a backbone that is handed over and made already.
    """

    _lr: float | None = None  # where it is another than the optimizer's own

    def __init__(
        self,
        backbone: Backbone,
        adapter: AdapterConfig | None = None,
        train_backbone: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = None,
        backbone_options: BackboneOptions = BackboneOptions(),
    ) -> None:
        super().__init__()
        if adapter is not None and train_backbone:
            raise ValueError(
                "`train_backbone: true` trains the whole backbone and cannot be combined with an `adapter`: "
                "set `adapter: null` for full fine-tuning, or `train_backbone: false` for the adapter."
            )
        # From a checkpoint they come back in plain form.
        self.adapter: AdapterConfig | None = from_plain(AdapterConfig, adapter)
        self.scheduler: WarmupSchedule | TorchSchedule | LRSchedulerCallable | None = from_plain(
            WarmupSchedule, scheduler
        )
        self.backbone_options: BackboneOptions = from_plain(BackboneOptions, backbone_options)
        if train_backbone and self.backbone_options.quantization is not None:
            raise ValueError(
                "`train_backbone: true` trains what `backbone_options.quantization` would freeze: set "
                "`quantization: null`."
            )
        is_made = isinstance(backbone, nn.Module)
        if is_made:
            self.backbone_options.check_suits_module()
        self.save_hyperparameters(ignore=["backbone"] if is_made else None)
        self.train_backbone = train_backbone
        self.optimizer = optimizer
        self.injection_report: InjectionReport | None = None
        # In a tuple, or a module would be registered here as well as under `backbone`.
        self._backbone_source = (backbone,)
        self._weights: PretrainedWeights | None = None  # to be read when the model is sharded
        self._life_cycle = LifeCycle("backbone")

    # What a task defines

    @abstractmethod
    def build_backbone(self, source: Backbone) -> nn.Module:
        """Return the model for the constructor's `backbone`, with a new head where the task needs one.

        A model that is made from its name is made as `build_options` says: `pretrained`, `model_args`, `precision`. The
        other options are seen to afterwards.

        Raises:
            ValueError: If there is no such model.
        """

    def heads(self, backbone: nn.Module) -> Sequence[str] | None:
        """Return the modules that are trained in full where `adapter.heads` names none; None for the family's own."""
        return None

    def pretrained_weights(self, source: Backbone) -> PretrainedWeights | None:
        """Return where the backbone's weights can be read shard by shard; None builds it whole in every process.

        Asked for in sharded training only. Where there is an answer, `build_options` asks `build_backbone` for random
        weights.
        """
        return None

    @abstractmethod
    def build_metrics(self) -> MetricCollection:
        """Return the metrics by the name they are logged under, such as "accuracy"."""

    @abstractmethod
    def step(self, batch: Any) -> StepOutput:
        """Run the backbone on a batch and return the loss, and what the metrics need."""

    # Building

    @property
    def build_options(self) -> BackboneOptions:
        """The `backbone_options` that `build_backbone` goes by: without weights where they are read shard by shard."""
        if self._weights is None:
            return self.backbone_options
        return dataclasses.replace(self.backbone_options, pretrained=False)

    @at_least_float32()
    def configure_model(self) -> None:
        """Build the backbone and inject the adapter; a second call does nothing.

        Lightning calls this when it starts. Call it yourself to use the module without a Trainer.
        """
        if hasattr(self, "backbone"):
            return
        source = self._backbone_source[0]
        if self.device_mesh is not None:
            self._weights = self.pretrained_weights(source)
        backbone = self.build_backbone(source) if self._weights is None else self._build_empty(source)
        options = self.backbone_options
        if options.gradient_checkpointing:
            enable_gradient_checkpointing(backbone)
        heads = self.adapter.heads if self.adapter is not None else None
        if heads is None:
            heads = self.heads(backbone)
        if options.quantization is not None and not adapter_layers(backbone):
            quantize_backbone(backbone, options.quantization, find_heads(backbone, heads))
        if self.adapter is not None:
            self._let_callbacks_change_adapter()
            config = dataclasses.replace(self.adapter, heads=heads)
            self.injection_report = inject_adapters(backbone, config, draw=not config.needs_data)
        elif not self.train_backbone:
            freeze_backbone(backbone, find_heads(backbone, heads))
        metrics = self.build_metrics()
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.backbone = backbone  # only now: a failure above leaves nothing half-built behind
        self.train(self.training)  # Lightning keeps the mode it finds, and Hugging Face models start in eval mode
        if not self.train_backbone:
            self._life_cycle.adapted(self)
        elif options.precision != "float32":
            let_cast_inputs(backbone)
        if self.device_mesh is not None:
            shard_lightning_module(self)
        if self._weights is not None:
            self._read_weights(self._weights, find_heads(backbone, heads))

    def _build_empty(self, source: Backbone) -> nn.Module:
        """Build the backbone without its weights; whole after all where it computes buffers by way of parameters."""
        with empty_parameters(), suppress(NotImplementedError):  # a meta tensor has no numbers to compute with
            backbone = self.build_backbone(source)
            if not any(buffer.is_meta for buffer in backbone.buffers()):
                return backbone
        self._weights = None
        return self.build_backbone(source)

    def _read_weights(self, weights: PretrainedWeights, heads: Sequence[str]) -> None:
        """Read the shards of the weights that were left out."""
        options: ShardingOptions = self.trainer.strategy.sharding  # type: ignore[attr-defined]
        initialize = weight_initializer(self.backbone)
        materialize(self.backbone, weights, heads, initialize, device="cpu" if options.cpu_offload else None)
        self._weights = None

    def _let_callbacks_change_adapter(self) -> None:
        trainer = trainer_of(self)
        if trainer is not None:
            self.adapter = asked_config(trainer, cast(AdapterConfig, self.adapter))
            # A module rebuilt from its checkpoint has to allocate as much.
            if "adapter" in self.hparams:
                self.hparams["adapter"] = self.adapter

    def configure_callbacks(self) -> list[Callback]:
        """Return the callback through which the module lives; an override has to return it too.

        Raises:
            ValueError: If another callback decides what trains.
        """
        if not self.train_backbone:
            refuse_other_deciders(self.trainer)
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # it is set by a connector
        return [] if self._life_cycle in callbacks else [self._life_cycle]

    def setup(self, stage: str) -> None:
        """Refuse, before anything is built, what can't work, and say what trains where that is the head alone.

        Raises:
            RuntimeError: If an override of `configure_callbacks` leaves out what this class returns.
            ValueError: If the backbone is to be quantised and the strategy shards parameters, or bitsandbytes does not
                know the device.
        """
        if self._life_cycle not in self.trainer.callbacks:  # type: ignore[attr-defined]  # it is set by a connector
            raise RuntimeError(
                f"`configure_callbacks` of {type(self).__name__} leaves out what AdapterModule needs: let it return "
                "`[*super().configure_callbacks(), ...]`."
            )
        if stage == "fit" and self.adapter is None and not self.train_backbone:
            rank_zero_info(
                "trains the head alone, for there is no `adapter` (`train_backbone: true` trains everything)"
            )
        quantization = self.backbone_options.quantization
        if quantization is None:
            return
        strategy = self.trainer.strategy
        if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise ValueError(
                f"`quantization: {quantization}` gives weights that {type(strategy).__name__} can't shard: use "
                "one device, or the strategy ddp."
            )
        device = strategy.root_device.type
        if device not in DEVICES:
            raise ValueError(
                f"`quantization: {quantization}` does not run on a {device} device; bitsandbytes knows "
                f"{', '.join(DEVICES)}."
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the backbone."""
        return self.backbone(*args, **kwargs)

    # Training and evaluation

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch, logged as `train/loss` each logging step."""
        return self._step_and_log("train", batch).loss

    def validation_step(self, batch: Any, batch_idx: int) -> STEP_OUTPUT:
        """Log `val/loss` and the metrics over the epoch; callbacks get the fields of the `StepOutput`."""
        return self._step_and_log("val", batch)._asdict()

    def test_step(self, batch: Any, batch_idx: int) -> STEP_OUTPUT:
        """Log `test/loss` and the metrics over the epoch; callbacks get the fields of the `StepOutput`."""
        return self._step_and_log("test", batch)._asdict()

    def _step_and_log(self, stage: Stage, batch: Any) -> StepOutput:
        output = self.step(batch)
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        metrics.update(output.predictions, output.targets)
        in_training = stage == "train"
        size = len(output.targets)
        self.log(
            f"{stage}/loss",
            output.loss,
            on_step=in_training,
            on_epoch=not in_training,
            sync_dist=not in_training,  # of a training step the first process' loss is enough, and costs no exchange
            batch_size=size,
        )
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return output

    @property
    def run_directory(self) -> Path:
        """Folder of the run, for files beside the checkpoints; all processes have to ask, for one sends it to them."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of what trains, and its schedule.

        Raises:
            ValueError: If nothing trains, or a `WarmupSchedule` is asked for in a run without an end.
        """
        optimizer = self.optimizer(self.parameter_groups())
        if self._lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self._lr
        if self.scheduler is None:
            return optimizer
        config: dict[str, Any]
        if isinstance(self.scheduler, WarmupSchedule):
            num_steps = self.trainer.estimated_stepping_batches
            if num_steps == float("inf"):
                raise ValueError(
                    "a `WarmupSchedule` needs to know where the run ends: set `max_epochs` or `max_steps`."
                )
            config = {"scheduler": self.scheduler(optimizer, int(num_steps)), "interval": "step"}
        else:
            given = self.scheduler
            schedule = given if isinstance(given, TorchSchedule) else TorchSchedule(given, "epoch")
            config = {
                "scheduler": schedule.make(optimizer),
                "interval": schedule.interval,
                "frequency": schedule.frequency,
            }
            if hasattr(config["scheduler"], "monitor"):  # Lightning's ReduceLROnPlateau
                config["monitor"] = config["scheduler"].monitor
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": config})

    @property
    def lr(self) -> float:
        """The learning rate before any schedule, which Lightning's `LearningRateFinder` sets."""
        if self._lr is not None:
            return self._lr
        return float(self.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"])

    @lr.setter
    def lr(self, rate: float) -> None:
        self._lr = rate
        trainer = trainer_of(self)
        for config in () if trainer is None else trainer.lr_scheduler_configs:  # made already, from the rate before
            config.scheduler.base_lrs = [rate for _ in config.scheduler.base_lrs]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what trains as optimizer groups, the second of which has no weight decay."""
        parameters = [parameter for _, parameter in trainable_parameters(self)]
        if not parameters:
            raise ValueError("nothing trains: the backbone is frozen and has neither an adapter nor a head.")
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained and a description of the adapter, leave the frozen backbone out."""
        self._life_cycle.fill(self, checkpoint)
        if self.CHECKPOINT_HYPER_PARAMS_KEY in checkpoint:
            given = checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY]
            plain = _plain(given)
            checkpoint[LEFT_OUT_KEY] = [name for name in given if name not in plain and not self._is_default(name)]
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = plain
            checkpoint.pop(self.CHECKPOINT_HYPER_PARAMS_TYPE, None)  # a class, which `weights_only` refuses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load what was trained, after checking that it is all there and fits.

        Raises:
            ValueError: If a key is missing, unexpected or of another shape, but for the frozen backbone's, or if the
                checkpoint was written with another adapter configuration or backbone.
        """
        if trainer_of(self) is None:  # in `load_from_checkpoint`, where they have made this module
            self.backbone_options.check_hyperparameters(checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}))
            missing = [f"`{name}`" for name in checkpoint.get(LEFT_OUT_KEY, ()) if self._is_default(name)]
            if missing:
                rank_zero_warn(
                    f"The module of the checkpoint was given {listed(missing, 4)} in Python, which is not in it, "
                    "and this one has the default: give `load_from_checkpoint` the same if it is to train on."
                )
        self._life_cycle.restore(self, checkpoint)

    def _is_default(self, name: str) -> bool:
        """Whether an argument of the constructor has its default."""
        parameter = inspect.signature(type(self).__init__).parameters.get(name)
        return parameter is not None and self.hparams.get(name) is parameter.default


def _plain(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a checkpoint read with `weights_only=True` may hold; callables and modules are given anew.

    >>> _plain({"num_classes": 10, "schedule": WarmupSchedule(), "optimizer": torch.optim.AdamW})
    {'num_classes': 10, 'schedule': {'warmup': 0.0, 'decay': 'cosine', 'final': 0.0}}
    """
    plain: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        value = to_plain(value)
        if _is_plain(value):
            plain[name] = value
    return plain


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))
