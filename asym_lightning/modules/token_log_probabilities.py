"""Log-probabilities of tokens without ever holding the logits of all positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from asym_lightning.core.tokens import IGNORED


def token_log_probabilities(
    hidden: Tensor, targets: Tensor, output_layer: Callable[[Tensor], Tensor], chunk_size: int = 1024
) -> Tensor:
    """Return log softmax(output_layer(hidden[i]))[targets[i]] for each position i, and 0 where there is no target.

    Positions without a target are left out before the output layer. The others go through it `chunk_size` at a time;
    a backward pass computes each chunk's logits again, for what is made of the log-probabilities is not known here.

    Args:
        hidden: Hidden states (..., width).
        targets: Tokens (...), or -100.
        output_layer: From hidden states (n, width) to logits (n, vocabulary).
        chunk_size: Positions whose logits exist at one time.

    Example:
        >>> hidden = torch.eye(3)
        >>> token_log_probabilities(hidden, torch.tensor([0, -100, 0]), lambda h: 2 * h)
        tensor([-0.2395,  0.0000, -2.2395])
    """
    has_target = targets != IGNORED
    wanted, tokens = hidden[has_target], targets[has_target]

    def of_chunk(states: Tensor, labels: Tensor) -> Tensor:
        return -F.cross_entropy(output_layer(states).float(), labels, reduction="none")

    parts = zip(wanted.split(chunk_size), tokens.split(chunk_size), strict=True)
    if torch.is_grad_enabled():
        found = [checkpoint(of_chunk, states, labels, use_reentrant=False) for states, labels in parts]
    else:
        found = [of_chunk(states, labels) for states, labels in parts]
    all_positions = torch.zeros(targets.shape, dtype=found[0].dtype, device=hidden.device)
    return all_positions.masked_scatter(has_target, torch.cat(found))
