"""Names of other packages that begin with an underscore: all that are relied on, and why no public one would do.

Any release may take them away. So each has a test (tests/core/test_private_names.py), which fails when it is gone or
means something else, and pyproject.toml bounds the versions of the packages from above.

Methods of others that a class overrides have to stand in that class: :data:`OVERRIDDEN` says in which module which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.utilities import CombinedLoader

__all__ = [
    "DataDependentOutputException",
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
]

OVERRIDDEN = {
    # The one place that `.to()`, `.half()` and `.bfloat16()` of any module around it pass through.
    "asym_lightning.core.dtypes": "torch.nn.Module._apply",
    # Where batches of indices come from, with workers and without; a sampler of the user's can't be told to skip some.
    "asym_lightning.lifecycle.resumable_loader": "torch.utils.data.DataLoader._index_sampler",
    # Called by the constructor between parsing and building; a config's `seed_everything` can't be left out otherwise.
    "asym_lightning.cli.estimate.described_run": "lightning.pytorch.cli.LightningCLI._set_seed",
}

# torch

# `view` of what an autograd function returns may not be written to in place, and `reshape` is `view` where it can be.
unsafe_view = torch.ops.aten._unsafe_view

# To see every operator, and to run them without data, torch has but `TorchDispatchMode`, `FakeTensorMode` and its
# exception, above, which its notes on extending it describe and torch.compile uses; these are what is dispatched to.
index_put_impl_ = torch.ops.aten._index_put_impl_.default
local_scalar_dense = torch.ops.aten._local_scalar_dense.default
ctc_loss = torch.ops.aten._ctc_loss.default
ctc_loss_backward = torch.ops.aten._ctc_loss_backward.default
# Attention by a given kernel: the public function takes the one that suits the device, and there is no GPU here.
flash_attention = torch.ops.aten._scaled_dot_product_flash_attention
efficient_attention = torch.ops.aten._scaled_dot_product_efficient_attention

# A tensor's own `__torch_function__` is left out while this context lasts; the public one leaves out modes as well.
without_torch_function = torch._C.DisableTorchFunctionSubclass
# What `torch.nn.functional.grouped_mm` calls, and what a tensor's own `__torch_function__` sees of it.
grouped_mm = torch._grouped_mm

# What wrappers call the module inside them, and put between its name and its children's: FSDP1's, `torch.compile`'s and
# that of activation checkpointing.
WRAPPED = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")


def num_edits(tensor: Tensor) -> int:
    """How often a tensor has been written to: autograd's own count, which its notes describe and no method gives."""
    return tensor._version


def leave_out_of_ddp(module: nn.Module, names: list[str]) -> None:
    """Let a `DistributedDataParallel` made of the module exchange neither these parameters nor these buffers.

    torchrec and Hugging Face rely on it as well: the class has no argument for it.
    """
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def left_out_of_ddp(module: nn.Module) -> set[str]:
    """The names that :func:`leave_out_of_ddp` was given last."""
    return set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))


def set_child(module: nn.Module, name: str, child: nn.Module | None) -> None:
    """Put a child into a module under the name of a parameter of it, which `add_module` refuses; `None` removes it."""
    if child is None:
        del module._modules[name]
    else:
        module._modules[name] = child


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` has taken a module or a part of it, in a wrapper or in place."""
    return any(
        part._compiled_call_impl is not None or any(name == "_orig_mod" for name, _ in part.named_children())
        for part in module.modules()
    )


def own_convolution(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a convolution of torch computes with another weight: its padding modes have no public function."""
    return layer._conv_forward(x, weight, bias)


# What makes a `DataLoader` give its batches: a class that changes one of these iterates in a way of its own.
WAYS_TO_ITERATE = ("__iter__", "_get_iterator", "_index_sampler")


def keeps_workers(loader: DataLoader) -> bool:
    """Whether a loader has workers from an earlier epoch, by what it keeps them in."""
    return loader._iterator is not None


# Lightning


def trainer_of(module: LightningModule) -> Trainer | None:
    """The Trainer that a module is attached to, or `None`, for which the public property raises an error."""
    return module._trainer


def ends_with_its_processes(launcher: Any) -> bool:
    """Whether a strategy's launcher runs everything in processes of its own, by what it starts them with.

    Lightning asks by the launcher's class, which is private as well.
    """
    return hasattr(launcher, "_start_method")


def set_restart_stage(loop: Any, stage: str) -> None:
    """Let a loop take itself for interrupted at a stage, which else it concludes from its counters alone."""
    loop._restart_stage = stage


def take_for_begun(*loops: Any) -> None:
    """Let loops no longer take themselves for restarting; the public property sets those inside them too."""
    for loop in loops:
        loop._restarting = False


def data_fetcher(trainer: Trainer) -> Any:
    """What hands the training batches to the fit loop; the loaders, which are public, are asked by it ahead of time."""
    return trainer.fit_loop._data_fetcher


def loading_mode(loader: CombinedLoader) -> Literal["min_size", "max_size_cycle", "max_size", "sequential"]:
    """How a `CombinedLoader` puts batches together, to make another one of the same kind."""
    return loader._mode


def validation_is_due(trainer: Trainer) -> bool:
    """Whether a validation comes after the batch that is done; there are six options that decide that."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(data_fetcher(trainer))


def accumulates(trainer: Trainer) -> bool:
    """Whether the gradients of the batch that is done are kept for those to come."""
    return trainer.fit_loop._should_accumulate()


def count_step_for_loggers(trainer: Trainer, number: int = 1) -> None:
    """Count steps in what loggers go by, which is not the public `global_step`."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += number


def shared_sampler(value: Any) -> Any:
    """The user's sampler in the data set that Lightning makes of it, to share it out among processes; else `None`."""
    return getattr(value, "_sampler", None)


def set_inner_checkpoint_io(outer: Any, inner: Any) -> None:
    """Replace what a wrapping `CheckpointIO`, such as the asynchronous one, writes by; its property only reads."""
    outer._checkpoint_io = inner


def chooses_version(logger: Any) -> bool:
    """Whether a logger with folders is still to choose the one of its run; its public `version` chooses."""
    return logger._version is None


def set_version(logger: Any, version: str | None) -> None:
    """Let a logger that has written nothing yet write to that folder; ``None`` lets it choose, by those there are."""
    logger._version = version


# transformers


def weight_initializer(backbone: nn.Module) -> Callable[[nn.Module], Any] | None:
    """What gives a layer of the model its first weights; `init_weights` does that for whole models alone."""
    return getattr(backbone, "_init_weights", None)


def ties_by_name(model: nn.Module) -> bool:
    """Whether a class of transformers may tie weights and says which to which, even where it ties none now."""
    return isinstance(getattr(model, "_tied_weights_keys", None), dict)


def kept_in_float32(model: nn.Module) -> set[str]:
    """Parts of names of the modules that a model of transformers keeps in float32, which it asks the dtype of."""
    lists: Iterable[Any] = (getattr(module, "_keep_in_fp32_modules", None) for module in model.modules())
    return {part for names in lists for part in names or ()}


def attention_implementation(config: Any) -> str:
    """The attention that a model was built with, such as `sdpa`; there is a public way to choose it, not to ask."""
    return config._attn_implementation


def experts_implementation(config: Any) -> str | None:
    """How a model of transformers multiplies by its experts; a public way chooses it, none asks."""
    return getattr(config, "_experts_implementation", None)


def num_frames(model: Any, num_samples: Tensor) -> Tensor:
    """How many steps a speech encoder of transformers makes of samples, by its convolutions and what adapts them."""
    return model._get_feat_extract_output_lengths(num_samples)


# torchmetrics


def calibration_bins(confidences: Tensor, accuracies: Tensor, num_bins: int) -> Tensor:
    """Accuracy, mean confidence and share (3, bins) by confidence; the public calibration error is their sum alone.

    A last bin more than asked for holds the samples of confidence 1.
    """
    from torchmetrics.functional.classification.calibration_error import _binning_bucketize  # adapters do without

    edges = torch.linspace(0, 1, num_bins + 1, dtype=confidences.dtype, device=confidences.device)
    return torch.stack(_binning_bucketize(confidences, accuracies, edges))


def set_num_updates(metric: Any, number: int) -> None:
    """Let a metric take what it holds for that of so many updates; `update_count` can only be asked for."""
    metric._update_count = number


# accelerate


def is_offloaded(layer: nn.Module) -> bool:
    """Whether accelerate keeps the weights of a layer elsewhere between its calls."""
    return bool(getattr(getattr(layer, "_hf_hook", None), "offload", False))


# datasets


def fingerprint(dataset: Any) -> str:
    """What `datasets` keeps results of a data set under: the same for the same data and the same steps."""
    return dataset._fingerprint


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches calls of a module; public functions add and remove hooks, none tells of them."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
