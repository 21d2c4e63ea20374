"""Mixup: training on mixtures of two samples."""

from __future__ import annotations

import torch
from torch import Tensor


def mixed(inputs: Tensor, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Mix each sample of a batch with another one of it.

    `share * inputs + (1 - share) * inputs[partner]` with one share a batch, drawn from Beta(alpha, alpha) and
    at least a half, so that a sample's own label stays the one that counts more.

    Args:
        inputs: Samples (batch, ...).
        alpha: Parameter of the distribution, above 0; small ones mix little.

    Returns:
        The mixtures, for each sample the number of its partner, and the share.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> mixtures, partner, share = mixed(torch.tensor([[0.0], [1.0]]), alpha=1.0)
        >>> 0.5 <= share <= 1, sorted(partner.tolist())
        (True, [0, 1])

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    parameter = torch.tensor(alpha, dtype=torch.float32)  # in half precision, which may be the default, none is drawn
    share = float(torch.distributions.Beta(parameter, parameter).sample())
    share = max(share, 1 - share)
    partner = torch.randperm(len(inputs), device=inputs.device)
    return torch.lerp(inputs[partner], inputs, share), partner, share
