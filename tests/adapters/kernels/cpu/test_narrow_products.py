"""Products over the tokens against float64, by the compiled kernels and by torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asym_lightning.adapters.kernels.cpu import narrow_products
from asym_lightning.adapters.kernels.cpu.library import c_library
from asym_lightning.adapters.kernels.cpu.narrow_products import dot, outer

BY = [
    pytest.param(True, id="C", marks=pytest.mark.skipif(c_library() is None, reason="no C compiler")),
    pytest.param(False, id="torch"),
]


def columns_of(num_rows, width, offset, generator):
    """(num_rows, width) numbers inside a wider matrix, as a slice of a fused projection's output is."""
    return torch.randn(num_rows, width + 7, generator=generator)[:, offset : offset + width]


@pytest.mark.parametrize("compiled", BY)
@settings(max_examples=60, deadline=None)
@given(
    num_tokens=st.integers(0, 70), width=st.integers(1, 100), rank=st.integers(1, 20), offset=st.integers(0, 7),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_random_shapes_equal_float64(compiled, num_tokens, width, rank, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    x, h = (columns_of(num_tokens, n, offset, generator) for n in (width, rank))
    m = torch.randn(rank, width, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(narrow_products, "c_library", lambda: None)
        results = [dot(x, m), outer(h, x), outer(x, h), dot(x, m, 2.5) / 2.5, outer(h, x, 2.5) / 2.5]
        assert torch.equal(dot(x, m.T.contiguous().T), results[0])  # by the same kernel, as B^T is given
    x, h, m = x.double(), h.double(), m.double()
    for result, expected in zip(results, [x @ m.T, h.T @ x, x.T @ h, x @ m.T, h.T @ x], strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rank", [8, 20, 64, 65])
def test_many_tokens_and_columns_in_several_threads(threads, rank):
    before = torch.get_num_threads()
    g, h, m = torch.randn(1003, 1100), torch.randn(1003, rank), torch.randn(rank, 1100)
    try:
        torch.set_num_threads(threads)
        projected, gradient = dot(g, m), outer(g, h)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(projected.double(), g.double() @ m.double().T, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(gradient.double(), g.double().T @ h.double(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_torchs_own(dtype):
    x, m = torch.randn(30, 50).to(dtype), torch.randn(4, 50).to(dtype)
    assert torch.equal(dot(x, m), x @ m.T)
    assert outer(x, x[:, :4]).dtype == dtype
