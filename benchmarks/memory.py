"""Bytes: what a graph keeps for its backward pass, what is free, what an arm will need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

# Of what is predicted and of what is free: temporaries on top of saved tensors, and room for the rest of the machine.
TEMPORARIES = 1.5
USABLE = 0.9


def saved_bytes(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes that ``run``'s graph keeps for the backward pass: each storage once and in full, parameters left out.

    >>> x, w = torch.ones(4, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    >>> saved_bytes(lambda: (x * w).sum(), [w])  # x, for the gradient of w
    128
    """
    return sum(storage.nbytes() for storage in saved_storages(run, parameters).values())


def saved_storages(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    """The storages that ``run``'s graph keeps, by their addresses, parameters left out."""
    excluded = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps addresses from being given out again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            kept[storage.data_ptr()] = storage
        # A result that its own node keeps would otherwise keep the node, and the graph would never go.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return kept


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes of the CPU's tensors that are there at once while it runs, over what was there before.

    >>> peak_bytes(lambda: torch.ones(8) + torch.ones(8))  # both terms and the sum
    96
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested dictionaries, lists and tuples, as an optimizer's state is.

    >>> tensor_bytes({"a": [torch.zeros(3), 1], "b": {"c": torch.zeros(2, dtype=torch.int64)}})
    28
    """
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(tensor_bytes, value))
    return 0


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters."""
    return sum(p.nbytes for p in model.parameters())


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device, ``None`` where nothing tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_meminfo("MemAvailable"), _cgroup_room()]
    return min((limit for limit in limits if limit is not None), default=None)


class Budget:
    """Predicts whether what is about to be allocated will fit.

    Args:
        device: Where.
        limit: Bytes that may be taken; ``None`` asks the device each time.
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        self.device, self.limit = device, limit
        self.promised = 0  # optimizer states, which come into being at the first step only

    def shortage(self, resident: float, passing: float = 0) -> str | None:
        """Why this much can't be taken, or ``None`` if it can.

        Args:
            resident: Bytes that will stay until the cell ends.
            passing: Bytes that are given back at the end of a step.
        """
        room = free_bytes(self.device) if self.limit is None else self.limit
        if room is None:
            return None
        needed, left = resident + passing, max(0.0, USABLE * room - self.promised)
        if needed <= left:
            return None
        return f"would need {_size(needed)} of memory, {_size(left)} can be used"

    def reserve(self, resident: float, *, exists: bool = False) -> None:
        """Set bytes aside; those that exist already are missing from the free memory as it is."""
        if not exists or self.limit is not None:
            self.promised += int(resident)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes / 1e6:.2f} MB"


def _meminfo(key: str) -> int | None:
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    entries = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(entries[key].split()[0]) * 1024 if key in entries else None


def _cgroup_room() -> int | None:
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not used.exists() or limit.read_text().strip() == "max":
        return None
    return int(limit.read_text()) - int(used.read_text())
