"""Gradients that are looked at and not trained by."""

import torch
from torch import nn

from asym_lightning.core.gradients import gradients_by


def test_gradients_are_given_and_none_is_left_behind():
    used, unused, other = (nn.Parameter(torch.ones(3)) for _ in range(3))
    used.grad = torch.full((3,), 5.0)
    found = gradients_by((2 * used * other).sum(), [used, unused])
    assert torch.equal(found[0], torch.full((3,), 2.0)) and found[1] is None
    assert torch.equal(used.grad, torch.full((3,), 5.0)) and unused.grad is None and other.grad is None
