"""Sizes of the files that a run writes, from the shapes of what is in them."""

from __future__ import annotations

import json

from torch import Tensor, nn
from torch.optim import Optimizer

from asym_lightning.adapters import adapter_layers, trained_state_dict
from asym_lightning.adapters.files.directory import AdapterContents
from asym_lightning.adapters.files.save import adapter_contents
from asym_lightning.core.files import json_text
from asym_lightning.estimate.unknown_values import UnknownValues

# Measured: zip records, alignment to 64 bytes and pickled names of one tensor; the random state and loops of a run.
_CHECKPOINT_TENSOR_BYTES = 300
_CHECKPOINT_BYTES = 20_000


def adapter_directory_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of an adapter directory with frozen factors and without them; empty for a model without adapters.

    Args:
        model: The adapted backbone, without numbers, in its `fake_mode`.
    """
    if not adapter_layers(model):
        return {}
    sizes = {}
    with UnknownValues():
        for name, include_frozen in (("adapter directory", True), ("adapter directory, compact", False)):
            contents = adapter_contents(model, include_frozen=include_frozen)
            assert contents is not None
            sizes[name] = _directory_bytes(contents)
    return sizes


def checkpoint_bytes(module: nn.Module, optimizer: Optimizer) -> int:
    """Bytes of a training checkpoint: what was trained, buffers, and the optimizer's state.

    Args:
        module: What is trained.
        optimizer: With its state.
    """
    state = [value for values in optimizer.state.values() for value in values.values()]
    tensors = [value for value in [*trained_state_dict(module).values(), *state] if isinstance(value, Tensor)]
    storages = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in tensors)}  # shared once
    return sum(storage.nbytes() + _CHECKPOINT_TENSOR_BYTES for storage in storages.values()) + _CHECKPOINT_BYTES


def _directory_bytes(contents: AdapterContents) -> int:
    entries: dict[str, object] = {"__metadata__": contents.header}
    start = 0
    for name, tensor in contents.tensors.items():
        stop = start + tensor.nbytes
        # Every safetensors name of a dtype that is in use has three or four letters.
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    header = len(json.dumps(entries, separators=(",", ":")).encode())
    return start + 8 + -(-header // 8) * 8 + len(json_text(contents.config).encode())
