"""The backbone as it was before it was adapted, for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from asym_lightning.adapters.layers.adapted import AdaptedLayer
from asym_lightning.adapters.surgery.merge import merged_layers
from asym_lightning.core.dtensor import any_sharded


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Let a model compute what its frozen backbone does, as the reference of preference tuning, within a `with` block.

    Every layer is the host's own within it, so that what comes out is that of the backbone to the bit, and costs no
    more. Heads stay as they are. Adapters, and optimizers that hold them, stay too, but the model's `parameters()` and
    `state_dict()` are without them until the block ends; so call nothing there that saves. Where the model has no
    adapters, or they are disabled already, nothing happens.

    >>> import torch
    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model, x = nn.Sequential(nn.Linear(4, 4)), torch.ones(1, 4)
    >>> before = model(x)
    >>> _ = inject_adapters(model, AdapterConfig(scheme="hB_he_A_rand", rank=2, targets=["0"]))
    >>> with adapters_disabled(model), torch.no_grad():
    ...     reference = model(x)
    >>> torch.equal(reference, before), torch.equal(model(x), before)
    (True, False)

    Args:
        model: A model, or the part of one in which adapters are to be disabled.

    Raises:
        RuntimeError: The adapters are merged, or the model is sharded.
    """
    if any(True for _ in merged_layers(model)):
        raise RuntimeError("The adapters are merged into the weights: call `unmerge_adapters` before disabling them.")
    layers = [module for module in model.modules() if isinstance(module, AdaptedLayer)]
    if layers and any_sharded(model):
        raise RuntimeError("Adapters of a sharded model can't be disabled: keep a second model as the reference.")
    disabled = [(type(layer), layer, layer.adapters) for layer in layers]
    try:
        for layer in layers:
            layer.restore_host()
        yield
    finally:
        for kind, layer, adapters in disabled:
            if not isinstance(layer, AdaptedLayer):
                kind.adapt_host(layer, adapters)


def adapters_enabled(model: nn.Module) -> bool:
    """Whether adapters have a part in what a model computes: it has some, merged or not, and they are not disabled.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> _ = inject_adapters(model, AdapterConfig(rank=2, targets=["0"]))
    >>> with adapters_disabled(model):
    ...     inside = adapters_enabled(model)
    >>> inside, adapters_enabled(model)
    (False, True)
    """
    return any(isinstance(module, AdaptedLayer) for module in model.modules()) or any(
        True for _ in merged_layers(model)
    )
