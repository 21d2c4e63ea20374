"""Trace one training step of a model without numbers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from asym_lightning.adapters import adapter_layers
from asym_lightning.adapters.surgery.quantize import quantization_scales
from asym_lightning.estimate.fake_model import DEVICE
from asym_lightning.estimate.gpu_operators import GpuOperators
from asym_lightning.estimate.memory_trace import MemoryTrace
from asym_lightning.estimate.unknown_values import UnknownValues

ComputeLoss = Callable[[], Tensor]


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step on one device, beside the weights and the batch.

    Attributes:
        activations: What lives between the forward and the backward pass.
        computation: The most that lives at a time in either pass: activations, temporaries, and the share of the
            gradients that was asked for.
        update: The most that the optimizer's step needs beside its state.
    """

    activations: int
    computation: float
    update: float


def trace_step(
    module: nn.Module,
    compute_loss: ComputeLoss,
    optimizer: Optimizer,
    *,
    batch: Iterable[Tensor],
    autocast: torch.dtype | None = None,
    is_gpu: bool = True,
    accumulates: bool = False,
    gradient_share: float = 1.0,
) -> StepMemory:
    """Run a step in Lightning's order and count bytes: forward, gradients of the last step let go, backward, update.

    Call it in a `fake_mode`, with a model that `make_fake` was applied to, whose optimizer has its state
    (:func:`with_state`).

    Args:
        module: What is trained, in training mode.
        compute_loss: Runs the forward pass on the batch.
        optimizer: Of what trains, with its state.
        batch: Its tensors, which are not counted.
        autocast: What autocast computes in; None is no autocast.
        is_gpu: Compute as on a GPU.
        accumulates: Gradients of earlier batches are there during the backward pass, as with
            `accumulate_grad_batches`.
        gradient_share: Part of the gradients' bytes that a device holds.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    trace = MemoryTrace(gradient_share)
    held = [*module.parameters(), *module.buffers(), *quantization_scales(module)]
    trace.ignore([*held, *batch, *tensors_in(optimizer.state)])
    trace.watch_gradients(trained)
    with contextlib.ExitStack() as stack:
        stack.enter_context(trace)
        stack.enter_context(UnknownValues())
        if is_gpu:
            stack.enter_context(GpuOperators())
            stack.enter_context(_gpu_paths(module))
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
            trace.count_as_gradient(parameter.grad)
        with torch.autocast(DEVICE, dtype=autocast, enabled=autocast is not None):
            loss = compute_loss()
        activations = trace.live
        if not accumulates:
            for parameter in trained:
                parameter.grad = None
        # Not `loss.backward()`, under which `GpuOperators` would be off, and recomputation unlike the forward pass.
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(loss), torch.ones_like(loss))
        del loss
        computation = trace.peak
        before = trace.live
        trace.restart_peak()
        optimizer.step()
        update = trace.peak - before - gradient_share * trace.gradients
    return StepMemory(activations, computation, update)


def with_state(module: nn.Module, optimizer: Optimizer, *, is_gpu: bool = True) -> Optimizer:
    """Give an optimizer the state that it has after its first step; returns it.

    On a GPU it updates all parameters at once, as torch does there by default.
    """
    for group in optimizer.param_groups:
        if is_gpu and "foreach" in group and group["foreach"] is None and not group.get("fused"):
            group["foreach"] = True
    with UnknownValues():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@contextlib.contextmanager
def _gpu_paths(module: nn.Module) -> Iterator[None]:
    """Let adapted layers take the path that `auto` takes on a GPU."""
    configs = [(layer.adapters, layer.adapters.config) for layer in adapter_layers(module).values()]
    for adapters, config in configs:
        if config.path == "auto":
            adapters.config = dataclasses.replace(config, path="two_gemm")
    try:
        yield
    finally:
        for adapters, config in configs:
            adapters.config = config


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dictionaries, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
