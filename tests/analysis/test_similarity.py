import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.cross_decomposition import CCA

from asym_lightning.analysis import cca_similarity
from asym_lightning.analysis.similarity import chance_similarity, column_basis


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("dim", "r1", "r2"), [(32, 4, 4), (32, 2, 7), (64, 8, 1), (8, 8, 3), (5, 3, 4)])
def test_equals_scipys_principal_angles(dim, r1, r2):
    first, second = randn(dim, r1), randn(dim, r2, seed=1)
    cosines = np.cos(subspace_angles(first.numpy(), second.numpy()))
    assert cca_similarity(first, second) == pytest.approx((cosines**2).sum() / min(r1, r2), abs=1e-12)


def test_equals_the_canonical_correlations_of_scikit_learn():
    # scikit-learn centres the columns, so compare on columns that are centred already
    first, second = randn(40, 3), randn(40, 3, seed=1)
    second[:, 0] += 2 * first[:, 1]
    first, second = first - first.mean(0), second - second.mean(0)
    X, Y = CCA(n_components=3, scale=False, max_iter=5000, tol=1e-12).fit_transform(first.numpy(), second.numpy())
    correlations = [np.corrcoef(X[:, i], Y[:, i])[0, 1] for i in range(3)]
    assert cca_similarity(first, second) == pytest.approx(np.mean(np.square(correlations)), abs=1e-5)


def test_is_symmetric_and_blind_to_how_the_product_is_split():
    B, other, C = randn(16, 4), randn(16, 4, seed=1), randn(4, 4, seed=2)
    assert cca_similarity(B, other) == pytest.approx(cca_similarity(other, B), abs=1e-12)
    assert cca_similarity(B @ C, other) == pytest.approx(cca_similarity(B, other), abs=1e-10)


def test_dependent_and_zero_columns_add_no_dimension():
    B = randn(16, 3)
    degenerate = torch.cat([B, B @ randn(3, 2, seed=3), torch.zeros(16, 1)], dim=1)
    assert column_basis(degenerate).shape == (16, 3)
    assert cca_similarity(B, degenerate) == pytest.approx(1)
    other = randn(16, 4, seed=1)
    cosines = np.cos(subspace_angles(B.numpy(), other.numpy()))
    assert cca_similarity(degenerate, other) == pytest.approx((cosines**2).sum() / 3, abs=1e-12)


def test_float32_noise_does_not_count_as_a_direction():
    B = randn(64, 3, dtype=torch.float32)
    rank_deficient = B @ randn(3, 8, seed=1, dtype=torch.float32)
    assert column_basis(rank_deficient).shape == (64, 3)


def test_a_zero_factor_has_no_similarity():
    assert math.isnan(cca_similarity(torch.zeros(8, 2), randn(8, 2)))
    assert math.isnan(cca_similarity(randn(8, 2), randn(8, 0)))


def test_chance_level_is_the_mean_over_random_spaces():
    pairs = [(randn(40, 3, seed=i), randn(40, 6, seed=1000 + i)) for i in range(200)]
    mean = sum(cca_similarity(*pair) for pair in pairs) / len(pairs)
    assert mean == pytest.approx(chance_similarity(3, 40, 6), rel=0.05)


def test_refuses_other_shapes_and_values_that_are_not_finite():
    with pytest.raises(ValueError, match=r"shapes \(4, 2\) and \(5, 2\)"):
        cca_similarity(randn(4, 2), randn(5, 2))
    with pytest.raises(ValueError, match="not finite"):
        cca_similarity(torch.full((4, 2), math.nan), randn(4, 2))
