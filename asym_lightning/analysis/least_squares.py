"""Which factor is worth training: the closed-form optima of a linear model with A or with B frozen (Theorem 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LeastSquaresGap:
    """How much of a target update an adapter can reach with one factor frozen and the other at its optimum.

    Attributes:
        total: The loss without an adapter, `E ||Delta x||^2`.
        explained_by_B: What of it the best B removes, A being frozen.
        explained_by_A: What of it the best A removes, B being frozen.
    """

    total: float
    explained_by_B: float
    explained_by_A: float

    @property
    def gap(self) -> float:
        """Share of the total, in [-1, 1], by which training B explains more than training A."""
        return (self.explained_by_B - self.explained_by_A) / self.total if self.total else 0.0


def least_squares_gap(
    delta: Tensor, input_covariance: Tensor, A: Tensor, B: Tensor, output_metric: Tensor | None = None
) -> LeastSquaresGap:
    """Compare training B with A frozen to training A with B frozen, on a target update and given inputs.

    The model is `y = (W0 + B A) x` and the target `W0 + Delta`, so with `Sigma = E[x x^T]` the loss is
    `Tr[G (Delta - B A) Sigma (Delta - B A)^T]`, with `G = I` in the paper. Its optima are `optimal_B` and `optimal_A`.

    What decides is concentration. The best B sees Sigma and projects on the inputs that occur: if those
    fill few directions, as activations of a pretrained network do, a random A catches them and training B
    wins. Isotropic inputs give a tie. By the mirror image, which the paper does not treat, training A wins where
    G, the curvature of the loss in this layer's outputs, fills fewer directions than Sigma.

    Args:
        delta: Target update (d_out, d_in).
        input_covariance: Second moment Sigma of the layer's inputs (d_in, d_in).
        A: Frozen A (rank, d_in) of the arm that trains B; its rows need not be orthonormal.
        B: Frozen B (d_out, rank) of the arm that trains A.
        output_metric: Positive semidefinite G (d_out, d_out): how much an error of the layer's output costs. For a
            layer inside a network: the second moment of the loss's gradient by the output. None means the identity.

    Raises:
        ValueError: If shapes do not match.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> A, B = torch.linalg.qr(torch.randn(64, 4)).Q.T, torch.linalg.qr(torch.randn(64, 4)).Q
        >>> few = torch.randn(64, 4)  # inputs that fill 4 of 64 directions
        >>> result = least_squares_gap(torch.randn(64, 64), few @ few.T, A, B)
        >>> round(result.explained_by_B / result.total, 2), round(result.explained_by_A / result.total, 2)
        (1.0, 0.07)

    Source: Zhu et al. 2024, Theorem 4.3 and its proof; `output_metric` is an addition.
    """
    _check_shapes(delta, input_covariance, A, B, output_metric)
    delta, covariance, A, B = (tensor.double() for tensor in (delta, input_covariance, A, B))
    metric = None if output_metric is None else output_metric.double()
    return LeastSquaresGap(
        total=update_loss(delta, covariance, metric),
        explained_by_B=_explained(delta, covariance, optimal_B(delta, covariance, A) @ A, metric),
        explained_by_A=_explained(delta, covariance, B @ optimal_A(delta, B, metric), metric),
    )


def optimal_B(delta: Tensor, input_covariance: Tensor, A: Tensor) -> Tensor:
    """Return the best B (d_out, rank) for a frozen A: `Delta Sigma A^T (A Sigma A^T)^+`.

    It does not depend on the metric of the outputs.

    Example:
        >>> A = torch.eye(3)[:2]
        >>> optimal_B(torch.tensor([[5.0, 6.0, 7.0]]), torch.eye(3), A)
        tensor([[5., 6.]])
    """
    inner = A @ input_covariance @ A.T
    return delta @ input_covariance @ A.T @ _pseudo_inverse(inner)


def optimal_A(delta: Tensor, B: Tensor, output_metric: Tensor | None = None) -> Tensor:
    """Return the best A (rank, d_in) for a frozen B: `(B^T G B)^+ B^T G Delta`.

    It does not depend on the inputs: that is the asymmetry.

    Example:
        >>> optimal_A(torch.tensor([[5.0], [6.0], [7.0]]), torch.eye(3)[:, :2])
        tensor([[5.],
                [6.]])
    """
    weighted = B.T if output_metric is None else B.T @ output_metric
    return _pseudo_inverse(weighted @ B) @ weighted @ delta


def update_loss(error: Tensor, input_covariance: Tensor, output_metric: Tensor | None = None) -> float:
    """Return `Tr[G E Sigma E^T]`, the expected squared error of outputs for an error E of the weight.

    Example:
        >>> update_loss(torch.tensor([[1.0, 2.0]]), torch.eye(2))
        5.0
    """
    weighted = error if output_metric is None else output_metric @ error
    return torch.sum(weighted * (error @ input_covariance)).item()


def mean_least_squares_gap(
    delta: Tensor,
    input_covariance: Tensor,
    rank: int,
    output_metric: Tensor | None = None,
    *,
    num_draws: int = 20,
    seed: int = 0,
) -> LeastSquaresGap:
    """Return `least_squares_gap` averaged over random orthonormal A and B.

    Args:
        delta: Target update (d_out, d_in).
        input_covariance: Second moment of the inputs (d_in, d_in).
        rank: Rank of the adapter, at most `min(d_out, d_in)`.
        output_metric: See `least_squares_gap`.
        num_draws: Number of draws of A and B.
        seed: Seed of the draws.

    Raises:
        ValueError: If shapes do not match or the rank is too large.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> isotropic = mean_least_squares_gap(torch.randn(32, 32), torch.eye(32), rank=4)
        >>> abs(isotropic.gap) < 0.02  # the negative control: a tie
        True
    """
    d_out, d_in = delta.shape
    if not 1 <= rank <= min(d_out, d_in):
        raise ValueError(f"`rank` must be from 1 to {min(d_out, d_in)} for an update {d_out} x {d_in}, not {rank}.")
    generator = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(num_draws):
        A = torch.linalg.qr(torch.randn(d_in, rank, generator=generator, dtype=torch.float64)).Q.T
        B = torch.linalg.qr(torch.randn(d_out, rank, generator=generator, dtype=torch.float64)).Q
        results.append(least_squares_gap(delta, input_covariance, A, B, output_metric))
    return LeastSquaresGap(
        total=results[0].total,
        explained_by_B=sum(result.explained_by_B for result in results) / num_draws,
        explained_by_A=sum(result.explained_by_A for result in results) / num_draws,
    )


def effective_dimension(moment: Tensor) -> float:
    """Return how many directions a second moment fills: `(Tr Sigma)^2 / Tr(Sigma^2)`.

    d for isotropic data, k for equal variance in k directions.

    Example:
        >>> effective_dimension(torch.diag(torch.tensor([2.0, 2.0, 0.0, 0.0])))
        2.0
    """
    return (moment.trace().square() / moment.square().sum()).item()


def _explained(delta: Tensor, covariance: Tensor, update: Tensor, metric: Tensor | None) -> float:
    return update_loss(delta, covariance, metric) - update_loss(delta - update, covariance, metric)


def _pseudo_inverse(gram: Tensor) -> Tensor:
    # Rank-deficient where the inputs fill fewer directions than the rank: the least-norm optimum is as good as any.
    return torch.linalg.pinv(gram, hermitian=True, rtol=len(gram) * torch.finfo(gram.dtype).eps)


def _check_shapes(delta: Tensor, covariance: Tensor, A: Tensor, B: Tensor, metric: Tensor | None) -> None:
    d_out, d_in = delta.shape
    expected = {
        "input_covariance": (covariance, (d_in, d_in)),
        "A": (A, (A.shape[0], d_in)),
        "B": (B, (d_out, B.shape[-1])),
    }
    if metric is not None:
        expected["output_metric"] = (metric, (d_out, d_out))
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"`{name}` must be {shape[0]} x {shape[1]} for an update {d_out} x {d_in}, not {tuple(tensor.shape)}."
            )
