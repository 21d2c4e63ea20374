"""Adapters for a LightningModule that knows nothing of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins import BitsandbytesPrecision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from asym_lightning.adapters import (
    AdapterConfig,
    InjectionReport,
    fill_checkpoint,
    frozen_batch_norms,
    inject_adapters,
    restore_checkpoint,
    trainable_parameters,
    untrained_adapters,
)
from asym_lightning.adapters.files.checkpoint import RANDOM_STATE_KEY, restore_random_state
from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.callbacks.rank_schedule import scheduled_config
from asym_lightning.core.ddp import leave_frozen_out_of_ddp
from asym_lightning.core.dtypes import at_least_float32, train_in_float32
from asym_lightning.core.messages import listed
from asym_lightning.lifecycle.backbone import named_backbone
from asym_lightning.lifecycle.optimizers import hold_all
from asym_lightning.lifecycle.replicas import check_replicas
from asym_lightning.lifecycle.resumable_loader import make_train_loaders_resumable
from asym_lightning.sharding import shard_lightning_module


class AdapterInjection(Callback):
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
    wound on to where they were. (Lightning's averages over the interrupted epoch cover the rest of it only.)

    Args:
        adapter: What to adapt and how; names in it are relative to the backbone. None means the defaults.
        backbone: Dotted name of the submodule to adapt, such as `model` or `net.encoder`; None means the whole module.
        heads: Dotted suffixes or globs of modules that are trained in full, anywhere in the module; all else outside
            the backbone is frozen. None leaves what is outside the backbone as the module made it, trained as a rule.
        check_after: Number of optimizer steps after which every adapter must have had a gradient. More than 1 suits
            modules that use a part of their layers in each step, as with several optimizers that take turns.

    Raises:
        ValueError: On start, if there is no such backbone, head or target, or Lightning's `BitsandbytesPrecision`, or
            a WeightAveraging callback before this one; if `check_after` is less than 1.
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
        check_after: int = 1,
    ) -> None:
        super().__init__()
        if check_after < 1:
            raise ValueError(f"`check_after` must be at least 1 step, got {check_after}.")
        self.adapter = adapter or AdapterConfig()
        self.backbone = backbone
        self.heads = heads
        self.check_after = check_after
        self.report: InjectionReport | None = None
        self._without_gradient: set[str] | None = None
        self._random_state: dict[str, Any] | None = None

    # Without a Trainer

    def inject(self, module: nn.Module) -> InjectionReport:
        """Adapt a module whose backbone is built; a second call does nothing."""
        return self._inject(module, self.adapter)

    def load(self, module: nn.Module, checkpoint: str | Path) -> None:
        """Adapt a freshly built module and load what a training checkpoint holds into it.

        Args:
            module: A module as it was before training, pretrained backbone included.
            checkpoint: A `.ckpt` file of a run with this callback; only tensors and plain values are read from it.

        Raises:
            ValueError: The checkpoint is of another backbone, adapter or head.
        """
        self.inject(module)
        restore_checkpoint(module, torch.load(checkpoint, map_location="cpu", weights_only=True))

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Arrange for the injection to follow `configure_model`."""
        injections = [c for c in trainer.callbacks if isinstance(c, AdapterInjection)]  # type: ignore[attr-defined]
        if len(injections) > 1:
            raise RuntimeError("There are two AdapterInjection callbacks, but a module is adapted once; remove one.")
        if isinstance(trainer.precision_plugin, BitsandbytesPrecision):
            raise ValueError(
                "Lightning's `BitsandbytesPrecision` would put its layers in place of the adapted ones: leave it out "
                "and call `asym_lightning.adapters.quantize_backbone` where the module builds its backbone."
            )
        others = trainer.callbacks[: trainer.callbacks.index(self)]  # type: ignore[attr-defined]
        if any(isinstance(callback, WeightAveraging) for callback in others):
            raise ValueError(
                "A WeightAveraging callback copies the module when it is set up, which is before the adapters are "
                "there: name AdapterInjection before it."
            )
        config = scheduled_config(trainer, self.adapter)
        build = pl_module.configure_model

        def build_and_inject() -> None:
            del pl_module.configure_model  # Lightning calls this once; later calls are the module's own
            with at_least_float32():
                build()
            self._inject(pl_module, config)

        # The module's `setup` and `configure_model` come after this hook and no callback's hook comes between them and
        # the optimizers.
        pl_module.configure_model = build_and_inject  # type: ignore[method-assign]
        make_train_loaders_resumable(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that an optimizer holds all that trains and processes agree; draw on where a resumed run left off."""
        hold_all(trainer.optimizers, self._trained(pl_module))
        if isinstance(trainer.model, DistributedDataParallel):
            check_replicas(pl_module)
        self._without_gradient = set()
        if trainer.ckpt_path and self._random_state:
            restore_random_state(pl_module, self._random_state)
        self._random_state = None
        self._first_step = trainer.global_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep frozen batch normalisations in evaluation mode."""
        for batch_norm in frozen_batch_norms(named_backbone(pl_module, self.backbone)):
            batch_norm.eval()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note, until the check is done, which adapters get gradients."""
        if self._without_gradient is not None:
            untrained = set(untrained_adapters(named_backbone(pl_module, self.backbone)))
            self._without_gradient = untrained & (self._without_gradient or untrained)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Refuse adapters that had no gradient in the first steps."""
        if self._without_gradient is None or trainer.global_step < self._first_step + self.check_after:
            return
        names, self._without_gradient = sorted(self._without_gradient), None
        if names:
            raise RuntimeError(
                f"{len(names)} adapters got no gradient in {self.check_after} step(s) and would stay untrained: the "
                "model reads their layer's weight without calling the layer, or doesn't use it. Name them in `exclude` "
                f"(or raise `check_after` if they only take turns): {listed(names, 5)}."
            )

    # Parts

    def _inject(self, module: nn.Module, config: AdapterConfig) -> InjectionReport:
        backbone = named_backbone(module, self.backbone)
        outside = None if self.heads is None else find_heads(module, self.heads)
        if outside is not None:
            prefix = next(f"{name}." if name else "" for name, m in module.named_modules() if m is backbone)
            inside = [head.removeprefix(prefix) for head in outside if head.startswith(prefix)]
            if inside:
                heads = dict.fromkeys([*find_heads(backbone, config.heads), *inside])
                config = dataclasses.replace(config, heads=tuple(heads))
        self.report = inject_adapters(backbone, config)
        if outside is not None:
            _freeze_outside(module, backbone, outside)
        train_in_float32(module, backbone)
        if isinstance(module, LightningModule):
            if module.device_mesh is not None:
                shard_lightning_module(module)
            leave_frozen_out_of_ddp(module, backbone)
            _hold_what_was_trained(module, self._keep_random_state)
        return self.report

    def _trained(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """Adapters and heads, which have to be in an optimizer; what else trains is the module's affair."""
        backbone = named_backbone(module, self.backbone)
        ours = {id(p) for _, p in trainable_parameters(backbone)}
        for head in find_heads(module, self.heads or ()):
            ours.update(id(p) for p in module.get_submodule(head).parameters())
        return {name: p for name, p in trainable_parameters(module) if id(p) in ours}

    def _keep_random_state(self, state: dict[str, Any] | None) -> None:
        self._random_state = state


def _freeze_outside(module: nn.Module, backbone: nn.Module, heads: Sequence[str]) -> None:
    inside = {id(p) for p in backbone.parameters()}
    trained = {id(p) for head in heads for p in module.get_submodule(head).parameters()}
    for parameter in module.parameters():
        if id(parameter) not in inside:
            parameter.requires_grad_(id(parameter) in trained)


Keep = Callable[[dict[str, Any] | None], None]
Hook = Callable[[MutableMapping[str, Any]], None]


def _hold_what_was_trained(module: LightningModule, keep: Keep) -> None:
    """Let the module's own checkpoint hooks fill and restore checkpoints, after what they do already.

    A callback's hooks would not do: Lightning calls them after the module's state is loaded, and not at all for
    checkpoints of weights only. Partials rather than closures: a deep copy or a pickle of the module has its own.
    """
    save, load = _own_hook(module.on_save_checkpoint), _own_hook(module.on_load_checkpoint)
    module.on_save_checkpoint = partial(_save_what_was_trained, module, save)  # type: ignore[method-assign]
    module.on_load_checkpoint = partial(_load_what_was_trained, module, load, keep)  # type: ignore[method-assign]


def _own_hook(hook: Any) -> Hook:
    """The module's own hook, also where an earlier injection has replaced it."""
    is_ours = isinstance(hook, partial) and hook.func in (_save_what_was_trained, _load_what_was_trained)
    return hook.args[1] if is_ours else hook


def _save_what_was_trained(module: nn.Module, save: Hook, checkpoint: MutableMapping[str, Any]) -> None:
    save(checkpoint)
    fill_checkpoint(module, checkpoint)


def _load_what_was_trained(module: nn.Module, load: Hook, keep: Keep, checkpoint: MutableMapping[str, Any]) -> None:
    load(checkpoint)
    restore_checkpoint(module, checkpoint)
    keep(checkpoint.get(RANDOM_STATE_KEY))
