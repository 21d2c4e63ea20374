"""Whether the processes of a data-parallel run hold the same frozen tensors."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from asym_lightning.adapters.layers.lookup import adapters_by_name
from asym_lightning.core.ddp import first_difference, sum_of_bits
from asym_lightning.core.messages import listed
from asym_lightning.core.private_names import left_out_of_ddp


def check_replicas(module: nn.Module) -> None:
    """Check, in all processes of a data-parallel run together, that each holds the same frozen parameters and buffers.

    A is drawn from its layer's name and the adapter's seed, the backbone is read from a file, so they are equal by
    construction; nothing would make them so again. Each tensor's bits are summed, and the sums are compared.

    Raises:
        RuntimeError: Some differ; the message is the same in every process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    adapters = {
        id(parameter): f"{factor.replace('_', ' ')} of `{name}`"
        for name, adapter in adapters_by_name(module).items()
        for factor, parameter in adapter.named_parameters()
    }
    # Weights that are a class of their own, quantised say, may have no bits to read.
    frozen = [(n, p) for n, p in module.named_parameters() if not p.requires_grad and type(p) is nn.Parameter]
    left_out = left_out_of_ddp(module)
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in left_out]
    here = {
        adapters.get(id(tensor), f"`{name}`"): (id(tensor) in adapters, sum_of_bits(tensor))
        for name, tensor in [*frozen, *buffers]
    }
    difference = first_difference(here)
    if difference is not None:
        first, there = difference.first, difference.other
        in_adapter = [name for name in difference.names if first.get(name, there.get(name, (False, 0)))[0]]
        names = in_adapter or difference.names
        what, remedy = (
            ("adapters", "give every process one configuration and `adapter.seed`")
            if in_adapter
            else ("frozen backbones", "load the same weights in every process, or set `seed_everything`")
        )
        raise RuntimeError(
            f"The {what} of processes 0 and {difference.process} differ, in {listed(names, 1)}; {remedy}."
        )
