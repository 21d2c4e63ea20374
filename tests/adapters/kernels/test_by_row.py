import pytest
import torch

from asym_lightning.adapters.kernels.by_row import FactorsByRow, RowsInUse
from asym_lightning.adapters.kernels.plan import Plan
from asym_lightning.adapters.rows import Rows

D_IN, RANK, PLACES = 6, 2, 4
LAYOUTS = {
    "whole": (Rows(0, 9),),
    "slices": (Rows(0, 3), Rows(6, 3)),
    "interleaved": (Rows(0, 1, groups=3), Rows(2, 1, groups=3)),
}


@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("shape", [(3, D_IN), (6, D_IN), (3, 5, D_IN), (6, 2, 4, D_IN), (9, D_IN)], ids=str)
@pytest.mark.parametrize("shares_a", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("few", [0, 100])
def test_equals_the_dense_formula_row_by_row(few, layout, shape, shares_a, with_bias, with_gradient, monkeypatch):
    monkeypatch.setattr("asym_lightning.adapters.kernels.by_row._FEW", few)
    torch.manual_seed(0)
    rows = LAYOUTS[layout]
    double = torch.float64
    x, W = torch.randn(*shape, dtype=double), torch.randn(9, D_IN, dtype=double)
    b = torch.randn(9, dtype=double) if with_bias else None
    As = [torch.randn(RANK, D_IN, dtype=double) for _ in rows[: 1 if shares_a else None]]
    stacks = [torch.randn(PLACES, RANK, part.count, dtype=double, requires_grad=with_gradient) for part in rows]
    index, scalings = torch.tensor([3, 0, 1]), tuple(0.5 + i for i in range(len(rows)))
    plan = Plan(rows, scalings, shares_a and len(rows) > 1, 0.0, "auto")
    factors = FactorsByRow("layer", stacks, RowsInUse.of(index.tolist(), index.device))
    with torch.set_grad_enabled(with_gradient):
        found = factors.linear(x, W, b, As, plan)
    for i, row in enumerate(x):
        place = int(index[i // (len(x) // 3)])
        delta = torch.zeros_like(W)
        for j, (part, scaling, stack) in enumerate(zip(rows, scalings, stacks, strict=True)):
            B = stack[place].detach().T
            part.view(delta, 0).copy_(part.split(scaling * B @ As[0 if len(As) == 1 else j], 0))
        torch.testing.assert_close(found[i].detach(), row @ (W + delta).T + (0 if b is None else b))
    if with_gradient:
        found.sum().backward()
        assert all(stack.grad[2].abs().sum() == 0 < stack.grad[3].abs().sum() for stack in stacks)


@pytest.mark.parametrize(("num_rows", "is_kept"), [(3, True), (5, False)])
def test_the_Bs_of_rows_are_kept_from_token_to_token_unless_they_outgrow_the_stack(num_rows, is_kept, monkeypatch):
    monkeypatch.setattr("asym_lightning.adapters.kernels.by_row._FEW", 0)
    stacks = [torch.randn(PLACES, RANK, 9)]
    factors = FactorsByRow("layer", stacks, RowsInUse.of([i % 3 for i in range(num_rows)], torch.device("cpu")))
    x, W, A = torch.randn(num_rows, 1, D_IN), torch.randn(9, D_IN), torch.randn(RANK, D_IN)
    plan = Plan(LAYOUTS["whole"], (0.5,), False, 0.0, "auto")
    with torch.no_grad():
        first = factors.linear(x, W, None, [A], plan)
        assert torch.equal(factors.linear(x, W, None, [A], plan), first)
    assert bool(factors._kept) == is_kept


def test_what_is_kept_of_adapters_is_not_taken_for_rows():
    """A step of generation keeps one B an adapter; a prompt that comes then needs one a row."""
    torch.manual_seed(0)
    stacks = [torch.randn(PLACES, RANK, 9)]
    W, A = torch.randn(9, D_IN), torch.randn(RANK, D_IN)
    plan = Plan(LAYOUTS["whole"], (0.5,), False, 0.0, "auto")
    places = [2, 0, 1, 3]
    factors = FactorsByRow("layer", stacks, RowsInUse.of(places, torch.device("cpu")))
    with torch.no_grad():
        for num_tokens in (1, 9, 1, 9):
            x = torch.randn(4, num_tokens, D_IN)
            expected = torch.stack([x[i] @ (W + 0.5 * stacks[0][p].T @ A).T for i, p in enumerate(places)])
            torch.testing.assert_close(factors.linear(x, W, None, [A], plan), expected)
