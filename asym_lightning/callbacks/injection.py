"""Adapters for a LightningModule that knows nothing of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from typing_extensions import override

from asym_lightning.adapters import (
    AdapterConfig,
    InjectionReport,
    inject_adapters,
    restore_checkpoint,
    trainable_parameters,
)
from asym_lightning.adapters.surgery.merge import merged_layers
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.dtypes import at_least_float32
from asym_lightning.core.either_lightning import either
from asym_lightning.core.kinds import Count
from asym_lightning.core.names import prefix_of, submodule
from asym_lightning.lifecycle.adapter_directory import load_with_outside
from asym_lightning.lifecycle.backbone import named_backbone
from asym_lightning.lifecycle.callback_methods import asked_config
from asym_lightning.lifecycle.changes import Changes
from asym_lightning.lifecycle.checkpoint_file import read_checkpoint
from asym_lightning.lifecycle.life_cycle import LifeCycle
from asym_lightning.lifecycle.module_copies import warn_of_copies
from asym_lightning.lifecycle.promise import refuse_other_deciders
from asym_lightning.sharding import shard_lightning_module

Module = TypeVar("Module", bound=LightningModule)


class AdapterInjection(LifeCycle):
    """Adapt the backbone of any LightningModule, train it and resume it, with no change to the module.

    The backbone may be built in `__init__`, `setup` or `configure_model`: adapters go in right after `configure_model`,
    before optimizers are made, in fit, validate, test and predict alike. The rest of the backbone is frozen,
    running statistics of batch normalisations included. With `precision: bf16-true` it is in bfloat16, while adapters
    and whatever else trains stay in float32.

    A backbone that the module quantises with bitsandbytes, by `quantize_backbone` or otherwise, is adapted as it is.
    Lightning's `BitsandbytesPrecision` is refused: it would put its layers in place of the adapted ones.

    Before the first step every adapter and head has to be in an optimizer. One that was made earlier, like the
    automatic one of LightningCLI, lacks them; if there is a single optimizer with a single parameter group they are
    added to that group, otherwise the run is refused. Frozen parameters may stay in an optimizer: they get no gradient,
    so no optimizer of torch touches them, weight decay or not.

    After the first step every adapter has to have had a gradient.

    Checkpoints, whichever callback writes them, hold what was trained instead of the whole module, and the random
    state. A resumed run on a CPU is equal to an uninterrupted one to the bit, in mid-epoch too: the training data are
    wound on to where they were. (Lightning's averages over the interrupted epoch cover the rest of it only; metrics in
    the module count on.)

    Args:
        adapter: What to adapt and how; names in it are relative to the backbone. None means the defaults.
        backbone: Dotted name of the submodule to adapt, such as `model` or `net.encoder`; None means the whole module.
        heads: Dotted suffixes or globs of modules that are trained in full, anywhere in the module; all else outside
            the backbone is frozen. None leaves what is outside the backbone as the module made it, trained as a rule.
        check_after: Number of optimizer steps after which every adapter must have had a gradient. More than 1 suits
            modules that use a part of their layers in each step, as with several optimizers that take turns.

    Raises:
        ValueError: On start, if there is no such backbone, head or target, or Lightning's `BitsandbytesPrecision`, or
            an average of factors that another callback changes; if `check_after` is less than 1.
        RuntimeError: On start, if there is a second injection, a trained parameter in no optimizer, or, in
            data-parallel training, a frozen one that differs between processes; after `check_after` steps, if an
            adapter got no gradient.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        >>> module = nn.ModuleDict({"net": net, "head": nn.Linear(8, 2)})
        >>> injection = AdapterInjection(AdapterConfig(rank=2, targets=["0"]), backbone="net")
        >>> report = injection.inject(module)
        >>> [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        ['net.0.adapters.all.factor_B', 'head.weight', 'head.bias']
    """

    def __init__(
        self,
        adapter: AdapterConfig | None = None,
        *,
        backbone: str | None = None,
        heads: Sequence[str] | None = None,
        check_after: Count = 1,
    ) -> None:
        super().__init__(backbone, check_after=check_after)
        self.adapter = adapter or AdapterConfig()
        self.backbone = backbone
        self.heads = heads
        self.report: InjectionReport | None = None
        self._changes = Changes()

    # Without a Trainer

    def inject(self, module: nn.Module) -> InjectionReport:
        """Adapt a module whose backbone is built; a second call does nothing."""
        return self._inject(module, self.adapter)

    def load(self, module: nn.Module, checkpoint: str | Path, *, weights_only: bool = True) -> None:
        """Adapt a freshly built module and load what a training checkpoint holds into it.

        Args:
            module: A module as it was before training, pretrained backbone included.
            checkpoint: A `.ckpt` file of a run with this callback, or the `.adapter` directory of an AdapterCheckpoint.
            weights_only: Read only tensors and plain values. False also runs code that a `.ckpt` file may hold, as of a
                project that keeps objects in it: only for files that you wrote.

        Raises:
            ValueError: The checkpoint is of another backbone, adapter or head, or the directory lacks a head outside
                the backbone.
        """
        self.inject(module)
        if Path(checkpoint).is_dir():
            load_with_outside(module, named_backbone(module, self.backbone), self.trained(module), checkpoint)
            return
        restore_checkpoint(module, read_checkpoint(checkpoint, weights_only=weights_only))

    def load_from_checkpoint(
        self, module_class: type[Module], checkpoint: str | Path, *, weights_only: bool = True, **arguments: Any
    ) -> Module:
        """Make a module as its class's own `load_from_checkpoint` does, adapt it, and load what was trained.

        Args:
            module_class: The module's class.
            checkpoint: A `.ckpt` file of a run with this callback.
            weights_only: As for :meth:`load`.
            **arguments: Of the constructor, where the checkpoint's hyperparameters lack some or are to be others.

        Raises:
            ValueError: The checkpoint is of another backbone, adapter or head.
        """
        with warnings.catch_warnings():  # of keys that are not there before the injection
            warnings.filterwarnings("ignore", message=".*keys that are (in|not in|not present in) the .*state dict")
            module = module_class.load_from_checkpoint(
                checkpoint, map_location="cpu", strict=False, weights_only=weights_only, **arguments
            )
        self.load(module, checkpoint, weights_only=weights_only)
        return module

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Arrange for the injection to follow `configure_model`."""
        super().setup(trainer, pl_module, stage)
        if stage == TrainerFn.FITTING:
            refuse_other_deciders(trainer, self)
        injections = [c for c in trainer.callbacks if isinstance(c, AdapterInjection)]  # type: ignore[attr-defined]
        if len(injections) > 1:
            raise RuntimeError("There are two AdapterInjection callbacks, but a module is adapted once; remove one.")
        config = asked_config(trainer, self.adapter)
        build = pl_module.configure_model

        def build_and_inject() -> None:
            self._changes.undo()  # Lightning calls this once; later calls are the module's own
            with at_least_float32():
                build()
            is_merged = any(True for _ in merged_layers(named_backbone(pl_module, self.backbone)))
            if not is_merged or stage == TrainerFn.FITTING:  # a merged model is evaluated as it is
                with self._changes.noted(pl_module):
                    self._inject(pl_module, config)
            if pl_module.device_mesh is not None:
                self._changes.forget()  # there is no way back from shards

        # The module's `setup` and `configure_model` come after this hook and no callback's hook comes between them and
        # the optimizers.
        self._changes.forget()
        with self._changes.noted(pl_module):
            pl_module.configure_model = build_and_inject  # type: ignore[method-assign]

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look once more at what trains, and let the adapters stay."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._changes.forget()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the adapters stay."""
        self._changes.forget()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave a module as it was of which nothing has been trained, so that it may be trained in another way."""
        super().on_exception(trainer, pl_module, exception)
        self._changes.undo()

    @override
    def decides_on(self, module: nn.Module) -> nn.Module:
        """The whole module where `heads` say what trains outside the backbone."""
        return super().decides_on(module) if self.heads is None else module

    @override
    def trained(self, module: nn.Module) -> Mapping[str, nn.Parameter]:
        """Adapters and heads, those outside the backbone included."""
        ours = {id(p) for p in super().trained(module).values()}
        for head in find_heads(module, self.heads or ()):
            ours.update(id(p) for p in submodule(module, head).parameters())
        return {name: p for name, p in trainable_parameters(module) if id(p) in ours}

    # Parts

    def _inject(self, module: nn.Module, config: AdapterConfig) -> InjectionReport:
        backbone = named_backbone(module, self.backbone)
        outside = None if self.heads is None else find_heads(module, self.heads)
        if outside is not None:
            prefix = prefix_of(backbone, module)
            inside = [head.removeprefix(prefix) for head in outside if head.startswith(prefix)]
            if inside:
                heads = dict.fromkeys([*find_heads(backbone, config.heads), *inside])
                config = dataclasses.replace(config, heads=tuple(heads))
        warn_of_copies(module, backbone)
        self.report = inject_adapters(backbone, config, draw=not config.needs_data)
        if outside is not None:
            _freeze_outside(module, backbone, outside)
        self.adapted(module)
        if isinstance(module, either(LightningModule)):
            if module.device_mesh is not None:
                shard_lightning_module(module)
            _hold_what_was_trained(module, self)
        return self.report


def _freeze_outside(module: nn.Module, backbone: nn.Module, heads: Sequence[str]) -> None:
    inside = {id(p) for p in backbone.parameters()}
    trained = {id(p) for head in heads for p in submodule(module, head).parameters()}
    for parameter in module.parameters():
        if id(parameter) not in inside:
            parameter.requires_grad_(id(parameter) in trained)


Hook = Callable[[dict[str, Any]], None]


def _hold_what_was_trained(module: LightningModule, life_cycle: LifeCycle) -> None:
    """Let the module's own checkpoint hooks fill and restore checkpoints, after what they do already.

    A callback's hooks would not do: Lightning calls them after the module's state is loaded, and not at all for
    checkpoints of weights only. Partials rather than closures: a deep copy or a pickle of the module has its own.
    """
    save, load = _own_hook(module.on_save_checkpoint), _own_hook(module.on_load_checkpoint)
    module.on_save_checkpoint = partial(_then, save, life_cycle.fill, module)  # type: ignore[method-assign]
    module.on_load_checkpoint = partial(_then, load, life_cycle.restore, module)  # type: ignore[method-assign]


def _own_hook(hook: Any) -> Hook:
    """The module's own hook, also where an earlier injection has replaced it."""
    return hook.args[0] if isinstance(hook, partial) and hook.func is _then else hook


def _then(
    own: Hook,
    ours: Callable[[LightningModule, dict[str, Any]], None],
    module: LightningModule,
    checkpoint: dict[str, Any],
) -> None:
    own(checkpoint)
    ours(module, checkpoint)
