"""Where PEFT reads a file of ours and computes something else."""

from __future__ import annotations

from torch import nn

from asym_lightning.adapters.files.old_names import renamed, renamings_of
from asym_lightning.adapters.layers.lookup import adapter_layers


def layers_misread_by_peft(model: nn.Module) -> list[str]:
    """Adapted layers with which PEFT computes otherwise.

    Those that the model's own code reads and does not call, for PEFT wraps layers; those whose names PEFT takes for
    ones of old checkpoints, though they are the present ones, and renames; and those of a kind that it is wrong about.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16)
    >>> report = inject_adapters(encoder, AdapterConfig(rank=2, targets=["q", "o", "mlp"]))
    >>> layers_misread_by_peft(encoder)
    ['self_attn.out_proj', 'linear1', 'linear2']
    """
    renamings = renamings_of(model)
    return [
        name
        for name, layer in adapter_layers(model).items()
        if layer.adapters.has_opened_bypass
        or (layer.adapters.is_read and not layer.is_read)
        or layer.is_misread_by_peft
        or renamed(key := f"{layer.peft_place(name).path}.{layer.peft_names[0]}", renamings) != key
    ]
