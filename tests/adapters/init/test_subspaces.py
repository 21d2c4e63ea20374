import pytest
import torch

from asym_lightning.adapters.init import subspaces
from asym_lightning.adapters.init.subspaces import (
    leading_directions,
    orthonormalized,
    whitened_gradient_directions,
)
from asym_lightning.analysis.least_squares import least_squares_gap


def draw_statistics(d_in=24, d_out=10, num_batches=3, seed=0):
    """Inputs and gradients with spectra that fall off, so that leading directions are well determined."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = torch.logspace(0, -1.5, d_in, dtype=torch.float64)
    x = draw(400, d_in) * scales @ torch.linalg.qr(draw(d_in, d_in)).Q
    falling = torch.logspace(0, -1, d_out, dtype=torch.float64)[:, None]
    gradients = torch.cat([falling * draw(d_out, d_in) for _ in range(num_batches)])
    return gradients, x.T @ x / len(x)


def projection(rows):
    """The orthogonal projection on the rows' span, which does not depend on signs or on the basis."""
    return rows.T @ torch.linalg.inv(rows @ rows.T) @ rows


def eigenvectors(matrix, rank):
    return torch.linalg.eigh(matrix).eigenvectors.flip(1)[:, :rank].T


def symmetric_root(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**power @ vectors.T


@pytest.mark.parametrize("largest_dense", [1024, 1], ids=["dense", "randomised"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (24, 24)])
def test_leading_directions_are_those_of_the_singular_value_decomposition(shape, largest_dense, monkeypatch):
    monkeypatch.setattr(subspaces, "_LARGEST_DENSE", largest_dense)
    U, V = (torch.linalg.qr(torch.randn(n, min(shape), dtype=torch.float64)).Q for n in shape)
    matrix = U * torch.logspace(0, -3, min(shape), dtype=torch.float64) @ V.T
    found = leading_directions(matrix, 5)
    torch.testing.assert_close(found @ found.T, torch.eye(5, dtype=torch.float64))
    for row, expected in zip(found, torch.linalg.svd(matrix).Vh, strict=False):
        torch.testing.assert_close(row, expected * torch.sign(expected[expected.abs().argmax()]), rtol=1e-6, atol=1e-6)


def test_a_matrix_of_low_rank_has_no_more_directions_than_that():
    matrix = torch.randn(9, 2, dtype=torch.float64) @ torch.randn(2, 12, dtype=torch.float64)
    assert leading_directions(matrix, 5).shape == (2, 12)
    assert leading_directions(torch.zeros(9, 12), 5).shape == (0, 12)
    assert whitened_gradient_directions(torch.zeros(9, 12), torch.eye(12), 5).shape == (0, 12)


@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_whitened_gradient_is_its_formula_with_the_symmetric_root(damping):
    G, S = draw_statistics()
    inverse_root = symmetric_root(S + damping * S.diagonal().mean() * torch.eye(len(S)), -0.5)
    expected = eigenvectors(inverse_root @ G.T @ G @ inverse_root, 6) @ inverse_root
    expected *= 6**0.5 / expected.norm()
    expected *= torch.sign(expected.gather(1, expected.abs().argmax(1, keepdim=True)))
    torch.testing.assert_close(whitened_gradient_directions(G, S, 6, damping=damping), expected)


def test_whitened_gradient_lets_inputs_come_out_white():
    G, S = draw_statistics()
    A = whitened_gradient_directions(G, S, 6, damping=1e-9)
    moment = A @ S @ A.T
    torch.testing.assert_close(moment / moment[0, 0], torch.eye(6, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_no_other_rows_explain_more_of_the_preconditioned_descent_direction():
    G, S = draw_statistics(num_batches=1)
    delta = G @ torch.linalg.inv(S)
    B = torch.eye(len(delta), 4, dtype=torch.float64)
    rules = (leading_directions(S, 4), leading_directions(G, 4), whitened_gradient_directions(G, S, 4, damping=1e-12))
    shares = [least_squares_gap(delta, S, A, B) for A in rules]
    of_inputs, of_gradient, of_whitened = (share.explained_by_B / share.total for share in shares)
    best = torch.linalg.svdvals(delta @ symmetric_root(S, 0.5)) ** 2
    assert of_whitened == pytest.approx(float(best[:4].sum() / best.sum()))
    assert of_whitened > max(of_inputs, of_gradient)


def test_fewer_orthonormal_rows_are_a_prefix_of_more():
    G, S = draw_statistics()
    eight = orthonormalized(whitened_gradient_directions(G, S, 8))
    torch.testing.assert_close(eight @ eight.T, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(orthonormalized(whitened_gradient_directions(G, S, 3)), eight[:3])


def test_single_precision_statistics_give_the_same_subspace():
    G, S = draw_statistics()
    torch.testing.assert_close(
        projection(whitened_gradient_directions(G.float(), S.float(), 4)),
        projection(whitened_gradient_directions(G, S, 4)),
        rtol=1e-4,
        atol=1e-4,
    )
