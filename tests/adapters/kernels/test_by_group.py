import pytest
import torch

from asym_lightning.adapters.kernels.by_group import FactorsByGroup
from asym_lightning.adapters.kernels.linear import adapted_linear
from asym_lightning.adapters.kernels.plan import Plan
from tests.adapters.kernels.test_by_row import D_IN, LAYOUTS, RANK

MODELS = 3


@pytest.mark.parametrize("shape", [(3, D_IN), (6, D_IN), (6, 2, 4, D_IN)], ids=str)
@pytest.mark.parametrize("shares_a", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_each_model_by_itself_with_gradients_for_all_factors(layout, shape, shares_a, with_bias):
    torch.manual_seed(0)
    rows = LAYOUTS[layout]
    shares_a = shares_a and len(rows) > 1
    x, W, b = (torch.randn(*size, dtype=torch.float64) for size in (shape, (9, D_IN), (9,)))
    x.requires_grad_()
    b = b if with_bias else None
    As = [[torch.randn(RANK, D_IN).double() for _ in rows[: 1 if shares_a else None]] for _ in range(MODELS)]
    Bs = [[torch.randn(part.count, RANK).double() for part in rows] for _ in range(MODELS)]
    inputs = [x, *(factor.requires_grad_() for of_model in (*As, *Bs) for factor in of_model)]
    plan = Plan(rows, tuple(0.5 + i for i in range(len(rows))), shares_a, 0.0, "auto")
    found = FactorsByGroup("layer", As, Bs).linear(x, W, b, [], plan)
    parts = [
        adapted_linear(part, W, b, *of_model, plan) for part, *of_model in zip(x.chunk(MODELS), As, Bs, strict=True)
    ]
    expected = torch.cat(parts)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_keeps_no_inputs_where_A_is_frozen():
    x, W = torch.randn(4, 50, D_IN), torch.randn(9, D_IN)
    factors = FactorsByGroup("layer", [[torch.randn(RANK, D_IN)]] * 2, [[torch.randn(9, RANK).requires_grad_()]] * 2)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda _: None):
        factors.linear(x, W, None, [], Plan(LAYOUTS["whole"], (1.0,), False, 0.0, "auto"))
    assert max(kept) == 4 * 50 * RANK


@pytest.mark.parametrize(
    ("rows", "dropout", "message"),
    [
        (3, 0.0, "`blocks.0` was called with 3 rows, which 2 models can't share"),
        (4, 0.1, "`dropout: 0.1` of adapters draws random numbers"),
    ],
)
def test_what_can_not_be_shared_is_refused(rows, dropout, message):
    factors = FactorsByGroup("blocks.0", [[torch.zeros(RANK, D_IN)]] * 2, [[torch.zeros(9, RANK)]] * 2)
    plan = Plan(LAYOUTS["whole"], (1.0,), False, dropout, "auto")
    with pytest.raises(ValueError, match=message):
        factors.linear(torch.zeros(rows, D_IN), torch.zeros(9, D_IN), None, [], plan)
