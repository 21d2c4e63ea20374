import pytest
import torch

from asym_lightning.core.tall_matrices import Columns, singular_values


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize(("d_out", "rank", "d_in"), [(7, 3, 5), (2, 4, 3), (6, 1, 6)])
def test_singular_values_are_those_of_the_dense_product(batch, d_out, rank, d_in):
    torch.manual_seed(0)
    B, A = torch.randn(*batch, d_out, rank), torch.randn(*batch, rank, d_in)
    dense = torch.linalg.svdvals(B.double() @ A.double())
    found = singular_values(Columns.of(B), Columns.of(A.mT))
    count = min(d_out, rank, d_in)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[..., :count], dense[..., :count], atol=1e-12, rtol=1e-12)
    assert (found[..., count:].abs() < 1e-12).all()


def test_small_singular_values_beside_large_ones_keep_their_digits():
    left = torch.linalg.qr(torch.randn(20, 2, dtype=torch.float64)).Q * torch.tensor([1.0, 1e-12])
    right = torch.linalg.qr(torch.randn(30, 2, dtype=torch.float64)).Q
    found = singular_values(Columns.of(left), Columns.of(right))
    torch.testing.assert_close(found, torch.tensor([1.0, 1e-12], dtype=torch.float64), rtol=1e-3, atol=0)


def test_R_has_the_gram_matrix():
    columns = Columns.of(torch.randn(9, 4))
    torch.testing.assert_close(columns.R.T @ columns.R, columns.gram())
