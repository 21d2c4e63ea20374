"""What a step has to compute and keep, whatever the program: the measure of a perfect one.

Operations are products and sums, two for each pair of numbers that a matrix product multiplies. All else counts as
free: normalisation, activation functions, the update, memory, calls of functions. Bytes are those that the frozen
backbone keeps where nothing is computed twice, and what the gradient of an adapter needs on top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from asym_lightning.adapters import adapter_layers
from benchmarks.arms import Arm, Contender
from benchmarks.memory import saved_storages

Run = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Need:
    """Of one step of a perfect program.

    Attributes:
        flops: Products and sums.
        kept_bytes: What it keeps for the backward pass.
    """

    flops: int
    kept_bytes: int


@dataclass(frozen=True)
class Call:
    """A call of a linear layer that an arm adapts.

    Attributes:
        name: Of the layer, in the backbone.
        x: Its input.
        d_out: Size of a row of its output.
        needs_gradient: Something before the layer trains.
    """

    name: str
    x: Tensor
    d_out: int
    needs_gradient: bool

    @property
    def d_in(self) -> int:
        """Size of a row of the input."""
        return self.x.shape[-1]

    @property
    def tokens(self) -> int:
        """Rows of the input."""
        return self.x.numel() // self.d_in


class Arithmetic:
    """What arms need, from what the frozen backbone does.

    Args:
        floor: The backbone with no adapters.
        names: Layers that arms adapt.
        run: From a model to its loss.
    """

    def __init__(self, floor: nn.Module, names: Sequence[str], run: Run) -> None:
        self.names, self.run = names, run
        with _calls(floor, names) as calls:
            kept = saved_storages(lambda: run(floor), floor.parameters())
        self.floor = Need(_counted_flops(lambda: run(floor).backward()), sum(s.nbytes() for s in kept.values()))
        floor.zero_grad()
        # An input that several layers read is kept once, and not again where the backbone keeps it.
        inputs = [call.x.untyped_storage() for call in calls]
        self.input_bytes = sum({s.data_ptr(): s.nbytes() for s in inputs if s.data_ptr() not in kept}.values())

    def of(self, contender: Contender) -> Need | None:
        """Of the floor, or of low-rank factors in linear layers; ``None`` for other arms and layers."""
        arm = contender.arm
        if arm.kind == "floor":
            return self.floor
        sizes = _factor_sizes(contender, self.names)
        if arm.kind == "full" or sizes is None:
            return None
        with _calls(contender.model, self.names) as calls:
            self.run(contender.model)
        flops = self.floor.flops + sum(adapter_flops(call, *sizes[call.name], arm) for call in calls)
        projected = sum(call.tokens * sizes[call.name][0] // call.d_in * call.x.element_size() for call in calls)
        return Need(flops, self.floor.kept_bytes + projected + (0 if arm.freezes_A else self.input_bytes))


def adapter_flops(call: Call, num_A: int, num_B: int, arm: Arm) -> int:
    """Operations that an adapter adds to a frozen layer, by the cheaper of two ways.

    ``A x`` is computed for the gradient of B. The update is then a product with B, and in the backward pass one with B
    and one with A; or, without dropout, ``W + s B A`` is formed for each pass. A layer with nothing that trains before
    it is spared the backward pass, that of W too.

    Args:
        call: What the layer got.
        num_A: Numbers in A.
        num_B: Numbers in B.
        arm: Whether A trains, and whether there is dropout.

    >>> call, arm = Call("q", torch.empty(1000, 64), 64, needs_gradient=True), Arm("b-only", "ours", freezes_A=True)
    >>> adapter_flops(call, 8 * 64, 8 * 64, arm)  # A x and the gradient of B of 1000 tokens, and two formed W + s B A
    2179072
    >>> adapter_flops(call, 8 * 64, 8 * 64, Arm("b-only-dropout", "ours", has_dropout=True, freezes_A=True))
    5120000
    """
    A, B = 2 * call.tokens * num_A, 2 * call.tokens * num_B  # of a product with all tokens
    gradients = A + B if arm.freezes_A else 2 * (A + B)
    backward = (A + B if arm.freezes_A else A) if call.needs_gradient else 0
    applied = B + backward
    if not arm.has_dropout:
        applied = min(applied, 2 * num_A * num_B * call.d_in // num_A * (1 + call.needs_gradient))
    spared = 0 if call.needs_gradient else 2 * call.tokens * call.d_in * call.d_out
    return gradients + applied - spared


def _factor_sizes(contender: Contender, names: Sequence[str]) -> dict[str, tuple[int, int]] | None:
    """Numbers in A and in B of every layer; ``None`` where one is not linear, or has something else."""
    adapted = adapter_layers(contender.model) if contender.arm.kind == "ours" else {}
    sizes = {}
    for name in names:
        layer = _layer(contender.model, name)
        if not isinstance(_linear(layer), nn.Linear) or contender.arm.scheme is not None:
            return None
        if name in adapted:
            factors = [(adapter.A, adapter.B) for adapter in adapted[name].adapters.values()]
        elif hasattr(layer, "lora_A"):
            factors = [(layer.lora_A[key].weight, layer.lora_B[key].weight) for key in layer.lora_A]
        else:
            return None
        sizes[name] = (sum(A.numel() for A, _ in factors), sum(B.numel() for _, B in factors))
    return sizes


@contextmanager
def _calls(model: nn.Module, names: Sequence[str]) -> Iterator[list[Call]]:
    """A list that fills with the calls of the linear layers of these names."""
    calls: list[Call] = []

    def see(name: str, layer: nn.Linear) -> Callable[..., None]:
        return lambda module, args: calls.append(
            Call(name, args[0].detach(), layer.out_features, args[0].requires_grad)
        )

    layers = {name: _layer(model, name) for name in names}
    hooks = [
        layer.register_forward_pre_hook(see(name, _linear(layer)))
        for name, layer in layers.items()
        if isinstance(_linear(layer), nn.Linear)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _layer(model: Any, name: str) -> Any:
    """A layer by its name in the backbone, which peft puts deeper; ``None`` if it is a parameter."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return dict(base.named_modules()).get(name)


def _linear(layer: Any) -> Any:
    """What peft wraps."""
    return getattr(layer, "base_layer", layer)


def _counted_flops(step: Callable[[], object]) -> int:
    aten = torch.ops.aten
    attention = {  # of a CPU, which torch doesn't count
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
            sdpa_backward_flop_count(g, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        step()
    return counter.get_total_flops()
