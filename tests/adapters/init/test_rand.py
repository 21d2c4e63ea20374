"""Random orthonormal rows: orthonormal, uniform, and the same ones first whatever their number."""

import pytest
import torch

from asym_lightning.adapters.init.generator import layer_generator
from asym_lightning.adapters.init.rand import orthonormal_rows


@pytest.mark.parametrize(("rank", "dim"), [(1, 1), (3, 3), (8, 768), (5, 17), (64, 4096)])
def test_random_A_is_orthonormal_to_1e_6_in_float32(rank, dim):
    A = orthonormal_rows(rank, dim, layer_generator(0, "a")).float()
    assert (A @ A.T - torch.eye(rank)).abs().max() < 1e-6


@pytest.mark.parametrize("dim", [13, 16, 100])
def test_first_rows_do_not_depend_on_the_number_of_rows(dim):
    small, large = (orthonormal_rows(r, dim, layer_generator(7, "a")) for r in (3, 11))
    torch.testing.assert_close(small, large[:3])


def test_draws_are_uniform_over_the_sphere():
    """Haar: every coordinate of a row has mean 0 and variance 1/dim, whatever the sign convention of the QR."""
    rows = torch.stack([orthonormal_rows(2, 6, layer_generator(seed, "a")) for seed in range(2000)])
    assert rows.mean(0).abs().max() < 5 * (1 / 6 / 2000) ** 0.5
    assert (rows.square().mean(0) - 1 / 6).abs().max() < 0.03


def test_new_rows_are_orthonormal_to_those_beside():
    old = orthonormal_rows(3, 10, layer_generator(0, "a"))
    new = orthonormal_rows(4, 10, layer_generator(0, "b"), beside=old)
    both = torch.cat([old, new])
    torch.testing.assert_close(both @ both.T, torch.eye(7, dtype=torch.float64))
