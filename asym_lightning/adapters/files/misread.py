"""Where PEFT reads a file of ours and computes something else, or nothing."""

from __future__ import annotations

from torch import nn

from asym_lightning.adapters.files.old_names import renamed, renamings_of
from asym_lightning.adapters.layers.lookup import adapter_layers
from asym_lightning.adapters.targets.bypasses import questioned_layers
from asym_lightning.core.private_names import ties_by_name

# What PEFT adapts no layer of these names in, though they be called there.
_STATE_SPACE_TYPES = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_NOT_IN_STATE_SPACES = {"out_proj", "conv1d"}


def layers_misread_by_peft(model: nn.Module) -> list[str]:
    """Adapted layers with which PEFT computes otherwise, or that keep it from reading the file or from computing.

    Those that the model's own code reads and does not call, or asks how they were set up, for PEFT wraps layers; those
    whose names PEFT takes for ones of old checkpoints, though they are the present ones, and renames; those of a kind
    that it is wrong about, or of a name that it refuses; and all of a model that ties weights and does not say to what.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> encoder = nn.TransformerEncoderLayer(8, 2, 16)
    >>> report = inject_adapters(encoder, AdapterConfig(rank=2, targets=["q", "o", "mlp"]))
    >>> layers_misread_by_peft(encoder)
    ['self_attn.out_proj', 'linear1', 'linear2']
    """
    layers = adapter_layers(model)
    if not _says_what_is_tied(model):
        return list(layers)
    renamings = renamings_of(model)
    questioned = questioned_layers(model, layers)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    refused = _NOT_IN_STATE_SPACES if model_type in _STATE_SPACE_TYPES else ()
    return [
        name
        for name, layer in layers.items()
        if layer.adapters.has_opened_bypass
        or (layer.adapters.is_read and not layer.is_read)
        or layer.is_misread_by_peft
        or name in questioned
        or name.rpartition(".")[2] in refused
        or renamed(key := f"{layer.peft_place(name).path}.{layer.peft_names[0]}", renamings) != key
    ]


def _says_what_is_tied(model: nn.Module) -> bool:
    """Whether PEFT, which asks a model of transformers with tied weights for its input embeddings, gets an answer."""
    if not ties_by_name(model) or getattr(getattr(model, "config", None), "tie_word_embeddings", None) is False:
        return True
    try:
        return model.get_input_embeddings() is not None  # type: ignore[operator]
    except (NotImplementedError, AttributeError):
        return False
