"""Random generators that depend on a seed and a name, on nothing else."""

from __future__ import annotations

import hashlib

import torch


def layer_generator(seed: int, key: str) -> torch.Generator:
    """A CPU generator that depends on the seed and on one factor's name only, so module order does not matter.

    >>> a = torch.rand(1, generator=layer_generator(0, "blocks.0.q.A"))
    >>> bool(a == torch.rand(1, generator=layer_generator(0, "blocks.0.q.A")))
    True
    """
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
