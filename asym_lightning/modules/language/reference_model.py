"""A backbone as it was before it was tuned, as the reference of losses that compare with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from asym_lightning.adapters import adapter_layers, adapters_disabled, trainable_parameters
from asym_lightning.core.messages import listed


@contextmanager
def as_reference(backbone: nn.Module) -> Iterator[None]:
    """Let a backbone compute without its adapters, gradients and dropout within a `with` block.

    >>> from asym_lightning.adapters import AdapterConfig, inject_adapters
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    >>> _ = inject_adapters(model, AdapterConfig("hB_he_A_rand", rank=2, targets=["0"]))
    >>> with as_reference(model):
    ...     y = model(torch.ones(1, 4))
    >>> torch.equal(y, model[0].weight.sum(dim=1)[None] + model[0].bias), y.requires_grad, model.training
    (True, False, True)
    """
    was_training = backbone.training
    try:
        with torch.no_grad(), adapters_disabled(backbone):
            backbone.eval()
            yield
    finally:
        backbone.train(was_training)


def check_is_reference(backbone: nn.Module, wanted_by: str) -> None:
    """Check that a backbone without its adapters is what it was before it was tuned.

    Args:
        backbone: An adapted model.
        wanted_by: What needs the reference, for the message.

    Raises:
        ValueError: If more of it trains than its adapters.
    """
    of_adapters = {id(p) for layer in adapter_layers(backbone).values() for p in layer.adapters.parameters()}
    others = [f"`{name}`" for name, p in trainable_parameters(backbone) if id(p) not in of_adapters]
    if others:
        raise ValueError(
            f"{wanted_by} compares with the backbone as it was, but {listed(others, 3)} would train too: leave `heads` "
            "and `token_rows` out, or take a loss without a reference."
        )
