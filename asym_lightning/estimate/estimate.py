"""The whole estimate of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asym_lightning.adapters import num_weights
from asym_lightning.estimate.fake_model import fake_mode, make_fake
from asym_lightning.estimate.file_sizes import adapter_directory_bytes, checkpoint_bytes
from asym_lightning.estimate.placement import Strategy, check_strategy, place
from asym_lightning.estimate.step import tensors_in, trace_step, with_state
from asym_lightning.sharding import ShardingOptions, checkpoint_activations


@dataclass(frozen=True)
class Run:
    """How a model is trained.

    Attributes:
        strategy: `single`, `ddp`, `fsdp` or `fsdp2`.
        devices: Number of devices, of all nodes together.
        is_gpu: They are GPUs.
        autocast: What autocast computes in; None is no autocast.
        micro_batches: Batches whose gradients are added up in a step.
        sharding: Options of FSDP.
    """

    strategy: Strategy = "single"
    devices: int = 1
    is_gpu: bool = True
    autocast: torch.dtype | None = None
    micro_batches: int = 1
    sharding: ShardingOptions = ShardingOptions()  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Estimate:
    """What a training step takes of one device, in bytes; of the fullest one where they differ.

    Attributes:
        strategy: How the work is divided.
        devices: Among how many.
        parameters: Number of parameters of the whole model; of quantised weights, those before packing.
        trained: Number of those that train.
        weights: Parameters, buffers and scales of quantised weights that a device holds. Exact, as are gradients and
            optimizer state.
        gradients: Gradients that it holds at the end of a step.
        optimizer_state: State of the optimizer for what it holds.
        buckets: Copies of the gradients in which DDP exchanges them.
        batch: The batch.
        gathered: Parameters of other devices, and gradients for them, that it holds for a while.
        activations: What lives between the forward and the backward pass. An estimate, as is the peak.
        peak: The most that is taken at a time.
        communication: Bytes of whole tensors exchanged in a step, by kind. Exact but for `fsdp`.
        files: Bytes of what a run writes.
    """

    strategy: Strategy
    devices: int
    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer_state: int
    buckets: int
    batch: int
    gathered: int
    activations: int
    peak: int
    communication: dict[str, int]
    files: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and names, as for JSON."""
        return asdict(self)


def estimate_step(
    module: nn.Module,
    make_batch: Callable[[], Any],
    compute_loss: Callable[[Any], Tensor],
    make_optimizer: Callable[[], Optimizer],
    run: Run = Run(),
    *,
    backbone: nn.Module | None = None,
) -> Estimate:
    """Find out what a training step takes, with a model that has no numbers.

    One step is traced as a single device computes it; what a strategy shares out, gathers and exchanges is added by
    arithmetic.

    Args:
        module: What is trained, in training mode, on the meta device; its parameters are replaced by fake ones.
        make_batch: Makes the batch of one device.
        compute_loss: Runs the forward pass on it.
        make_optimizer: Makes the optimizer of what trains.
        run: How it is trained.
        backbone: The adapted part of the module, for the sizes of files; None is the module itself.

    Raises:
        ValueError: The strategy is unknown, or does not suit the number of devices or a quantised backbone.

    Example:
        >>> model = nn.Sequential(nn.Linear(100, 50, device="meta"), nn.ReLU(), nn.Linear(50, 10, device="meta"))
        >>> estimate = estimate_step(model, lambda: torch.zeros(8, 100), lambda images: model(images).sum(),
        ...     lambda: torch.optim.Adam(model.parameters()), Run("ddp", devices=4))
        >>> estimate.parameters, estimate.gradients, estimate.optimizer_state, estimate.communication
        (5560, 22240, 44480, {'all-reduce': 22240})
        >>> estimate.activations  # ReLU's output; its input is not kept, and the sum keeps nothing
        1604
    """
    check_strategy(run.strategy, run.devices)
    is_sharded = run.strategy in ("fsdp", "fsdp2")
    with fake_mode():
        make_fake(module)
        if is_sharded and run.sharding.activation_checkpointing:
            checkpoint_activations(module)
        optimizer = with_state(module, make_optimizer(), is_gpu=run.is_gpu)
        batch = make_batch()
        tensors = list(tensors_in(batch))
        placement = place(
            module,
            optimizer,
            run.strategy,
            run.devices,
            micro_batches=run.micro_batches,
            reshard_after_forward=run.sharding.reshard_after_forward,
            gather_dtype=run.autocast,
            counts_scalars=not run.is_gpu,
        )
        step = trace_step(
            module,
            lambda: compute_loss(batch),
            optimizer,
            batch=tensors,
            autocast=run.autocast,
            is_gpu=run.is_gpu,
            accumulates=run.micro_batches > 1,
            gradient_share=placement.share,
        )
        adapted = backbone if backbone is not None else module
        files = adapter_directory_bytes(adapted)
        files["checkpoint"] = checkpoint_bytes(module, optimizer)
    weights, gradients, state = placement.weights, placement.gradients, placement.optimizer_state
    held = weights + state + placement.buckets
    if is_sharded and run.sharding.cpu_offload:
        held = sum(buffer.nbytes for buffer in module.buffers())
    num_batch = sum(tensor.nbytes for tensor in tensors)
    computing = step.computation + placement.gathered + num_batch
    updating = gradients + step.update * (placement.share if is_sharded else 1)
    parameters = list(module.parameters())
    return Estimate(
        strategy=run.strategy,
        devices=run.devices,
        parameters=sum(map(num_weights, parameters)),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        weights=weights,
        gradients=gradients,
        optimizer_state=state,
        buckets=placement.buckets,
        batch=num_batch,
        gathered=placement.gathered,
        activations=step.activations,
        peak=round(held + max(computing, updating)),
        communication=placement.communication,
        files=files,
    )
