import pytest
import torch

from asym_lightning.analysis import least_squares_gap
from asym_lightning.analysis.least_squares import (
    effective_dimension,
    mean_least_squares_gap,
    optimal_A,
    optimal_B,
    update_loss,
)

D_OUT, D_IN, RANK = 7, 10, 3


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(dim, rank, seed):
    root = randn(dim, rank, seed=seed)
    return root @ root.T / rank


def orthonormal(dim, rank, seed):
    return torch.linalg.qr(randn(dim, rank, seed=seed)).Q


def descend(loss, start, steps=4000):
    """Minimise by gradients alone, with no closed form."""
    parameter = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([parameter], max_iter=steps, tolerance_grad=1e-12, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        value = loss(parameter)
        value.backward()
        return value

    optimizer.step(closure)
    return parameter.detach()


@pytest.mark.parametrize("has_metric", [False, True])
def test_optima_are_where_gradient_descent_ends(has_metric):
    delta, covariance = randn(D_OUT, D_IN), moment(D_IN, 20, seed=1)
    metric = moment(D_OUT, 20, seed=2) if has_metric else None
    A, B = orthonormal(D_IN, RANK, 3).T, orthonormal(D_OUT, RANK, 4)
    G = torch.eye(D_OUT, dtype=torch.float64) if metric is None else metric

    def loss(update):
        error = delta - update
        return torch.trace(G @ error @ covariance @ error.T)

    found_B = descend(lambda b: loss(b @ A), torch.zeros(D_OUT, RANK, dtype=torch.float64))
    found_A = descend(lambda a: loss(B @ a), torch.zeros(RANK, D_IN, dtype=torch.float64))
    torch.testing.assert_close(optimal_B(delta, covariance, A), found_B, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(optimal_A(delta, B, metric), found_A, atol=1e-5, rtol=1e-5)
    result = least_squares_gap(delta, covariance, A, B, metric)
    assert result.total == pytest.approx(loss(torch.zeros_like(delta)).item())
    assert result.explained_by_B == pytest.approx(result.total - loss(found_B @ A).item(), abs=1e-8)
    assert result.explained_by_A == pytest.approx(result.total - loss(B @ found_A).item(), abs=1e-8)


def test_explained_loss_equals_the_paper_s_traces():
    delta, covariance = randn(D_OUT, D_IN), moment(D_IN, 20, seed=1)
    Q, U = orthonormal(D_IN, RANK, 3), orthonormal(D_OUT, RANK, 4)
    result = least_squares_gap(delta, covariance, Q.T, U)
    by_B = torch.trace(Q.T @ covariance @ delta.T @ delta @ covariance @ Q @ torch.linalg.inv(Q.T @ covariance @ Q))
    assert result.explained_by_B == pytest.approx(by_B.item())
    assert result.explained_by_A == pytest.approx(torch.trace(U.T @ delta @ covariance @ delta.T @ U).item())


def test_inputs_in_as_many_directions_as_the_rank_are_explained_by_B_entirely():
    result = mean_least_squares_gap(randn(64, 64), moment(64, 4, seed=1), rank=4)
    assert result.explained_by_B == pytest.approx(result.total)
    assert result.explained_by_A / result.total == pytest.approx(4 / 64, rel=0.15)  # r / d_out in expectation


@pytest.mark.parametrize(("rank", "dim"), [(2, 64), (4, 64), (8, 64), (8, 32)])
def test_gap_scales_as_one_minus_rank_over_dimension(rank, dim):
    result = mean_least_squares_gap(randn(dim, dim), moment(dim, rank, seed=1), rank=rank, num_draws=40)
    assert result.gap == pytest.approx(1 - rank / dim, abs=0.03)


def test_isotropic_inputs_are_a_tie():
    result = mean_least_squares_gap(randn(128, 128), torch.eye(128), rank=8, num_draws=40)
    assert abs(result.gap) < 0.005


def test_few_directions_of_the_outputs_favour_A_by_the_mirror_image():
    delta, few = randn(32, 32), moment(32, 4, seed=1)
    forward = least_squares_gap(delta, few, orthonormal(32, 4, 2).T, orthonormal(32, 4, 3))
    mirrored = least_squares_gap(delta.T, torch.eye(32), orthonormal(32, 4, 3).T, orthonormal(32, 4, 2), few)
    assert mirrored.explained_by_A == pytest.approx(forward.explained_by_B)
    assert mirrored.explained_by_B == pytest.approx(forward.explained_by_A)
    assert mirrored.gap == pytest.approx(-forward.gap)


def test_a_singular_problem_has_its_optimum_too():
    delta, covariance = randn(8, 8), moment(8, 2, seed=1)  # fewer directions than the rank
    A = orthonormal(8, 4, 2).T
    B = optimal_B(delta, covariance, A)
    assert torch.isfinite(B).all()
    assert update_loss(delta - B @ A, covariance) == pytest.approx(0, abs=1e-9)


def test_effective_dimension():
    assert effective_dimension(torch.eye(9)) == pytest.approx(9)
    assert effective_dimension(torch.ones(9, 9)) == pytest.approx(1)


def test_refuses_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"`input_covariance` must be 10 x 10 for an update 7 x 10, not \(7, 7\)"):
        least_squares_gap(randn(7, 10), torch.eye(7), randn(3, 10), randn(7, 3))
    with pytest.raises(ValueError, match="`rank` must be from 1 to 7"):
        mean_least_squares_gap(randn(7, 10), torch.eye(10), rank=8)
