"""Buffers of a model, such as running statistics, and which of them are no longer what they were when it was adapted.

What they were is noted on each module itself, outside its parameters and buffers, so that names don't matter.
"""

from __future__ import annotations

from torch import nn

from asym_lightning.core.names import plain_modules, plain_state
from asym_lightning.core.samples import is_still, sample

_ATTRIBUTE = "buffers_when_adapted"


def note_buffers(model: nn.Module) -> None:
    """Take the buffers that a state dict holds for what they are without training."""
    saved = plain_state(model)
    for prefix, module in plain_modules(model):
        noted = {
            name: sample(buffer)
            for name, buffer in module.named_buffers(recurse=False)
            if not buffer.is_meta and _joined(prefix, name) in saved
        }
        if noted:
            vars(module)[_ATTRIBUTE] = noted


def forget_buffers(model: nn.Module) -> None:
    """Undo :func:`note_buffers`."""
    for module in model.modules():
        vars(module).pop(_ATTRIBUTE, None)


def changed_buffers(model: nn.Module) -> list[str]:
    """Plain names of buffers that are not what they were at :func:`note_buffers`.

    >>> import torch
    >>> model = nn.Sequential(nn.BatchNorm1d(2))
    >>> note_buffers(model)
    >>> _ = model(torch.ones(3, 2))
    >>> changed_buffers(model)
    ['0.running_mean', '0.running_var', '0.num_batches_tracked']
    """
    return [
        _joined(prefix, name)
        for prefix, module in plain_modules(model)
        for name, buffer in module.named_buffers(recurse=False)
        if (noted := vars(module).get(_ATTRIBUTE, {}).get(name)) is not None and not is_still(noted, buffer)
    ]


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
