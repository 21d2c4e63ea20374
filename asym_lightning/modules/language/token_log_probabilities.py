"""Log-probabilities of tokens without ever holding the logits of all positions."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from asym_lightning.modules.chunks import in_chunks


def token_log_probabilities(
    hidden: Tensor, targets: Tensor, positions: Tensor, output_layer: Callable[[Tensor], Tensor], chunk_size: int = 1024
) -> Tensor:
    """Return log softmax(output_layer(hidden[i]))[targets[i]] for some positions i, and 0 for the others.

    The positions go through the output layer `chunk_size` at a time; a backward pass computes each chunk's logits
    again, for what is made of the log-probabilities is not known here.

    Args:
        hidden: Hidden states (rows, length, width).
        targets: Tokens (rows, length).
        positions: Numbers of the positions (n,), one row after another.
        output_layer: From hidden states (n, width) to logits (n, vocabulary).
        chunk_size: Positions whose logits exist at one time.

    Example:
        >>> import torch
        >>> hidden, targets = torch.eye(3)[None], torch.tensor([[0, -100, 0]])
        >>> token_log_probabilities(hidden, targets, torch.tensor([0, 2]), lambda h: 2 * h)
        tensor([[-0.2395,  0.0000, -2.2395]])
    """
    wanted = hidden.flatten(0, 1).index_select(0, positions)
    tokens = targets.flatten().index_select(0, positions)

    def of_chunk(states: Tensor, labels: Tensor) -> Tensor:
        return -F.cross_entropy(output_layer(states).float(), labels, reduction="none")

    values = in_chunks(of_chunk, chunk_size, wanted, tokens)
    return values.new_zeros(targets.numel()).index_copy(0, positions, values).view(targets.shape)
