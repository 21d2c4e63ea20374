"""Outputs and gradients of the adapted linear map against the dense formula, every path forced in turn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.init.rule import Draw, init_rule
from asym_lightning.adapters.kernels.dropout import drop_
from asym_lightning.adapters.kernels.linear import adapted_linear
from asym_lightning.adapters.kernels.plan import FEW_TOKENS, Plan, choose_path
from asym_lightning.adapters.rows import Rows

FORCED = ("plain", "two_gemm", "packed", "formed")
SCALING = 1.7


class Case:
    """Random operands of one adapted layer and the dense formula for them."""

    def __init__(self, rows, d_out, d_in, rank, shape, *, dtype=torch.float64, share=False, trains=("B",), seed=0):
        g = torch.Generator().manual_seed(seed)

        def draw(*size):
            return torch.randn(*size, generator=g, dtype=torch.float64).to(dtype)

        self.rows, self.share = rows, share
        self.W, self.b = draw(d_out, d_in), draw(d_out)
        self.As = [draw(rank, d_in).requires_grad_("A" in trains) for _ in rows[: 1 if share else None]]
        self.Bs = [draw(r.count, rank).requires_grad_("B" in trains) for r in rows]
        self.x = draw(*shape, d_in).requires_grad_()
        self.g = draw(*shape, d_out)

    def plan(self, path, dropout=0.0):
        return Plan(tuple(self.rows), (SCALING,) * len(self.rows), self.share, dropout, path)

    def packed(self, path):
        return torch.cat([self.W, *self.As]).detach() if path == "packed" else None

    def fast(self, path):
        return adapted_linear(self.x, self.W, self.b, self.As, self.Bs, self.plan(path), self.packed(path))

    def dense(self):
        delta = torch.zeros_like(self.W)
        for i, (rows, B) in enumerate(zip(self.rows, self.Bs, strict=True)):
            index = rows.take(torch.arange(self.W.shape[0]))
            delta = delta.index_add(0, index, B @ self.As[0 if self.share else i])
        return F.linear(self.x, self.W + SCALING * delta, self.b)

    def leaves(self):
        return [t for t in (self.x, *self.As, *self.Bs) if t.requires_grad]


def assert_same(case, path, tolerance):
    fast, dense = case.fast(path), case.dense()
    torch.testing.assert_close(fast, dense, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(
        torch.autograd.grad(fast, case.leaves(), case.g), torch.autograd.grad(dense, case.leaves(), case.g), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def drop(x, seed, p):
    drop_(x, seed, p)
    return x


LAYOUTS = {
    "whole": ([Rows(0, 12)], False),
    "qkv": ([Rows(0, 4), Rows(4, 4), Rows(8, 4)], False),
    "q and v": ([Rows(0, 4), Rows(8, 4)], False),
    "q and v, one A": ([Rows(0, 4), Rows(8, 4)], True),
    "interleaved": ([Rows(0, 2, groups=2), Rows(2, 2, groups=2), Rows(4, 2, groups=2)], False),
    "interleaved, one A": ([Rows(0, 2, groups=2), Rows(4, 2, groups=2)], True),
}


@pytest.mark.parametrize("path", FORCED)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("trains", ["B", "A", "AB"])
def test_output_and_gradients_equal_the_dense_formula(layout, path, trains):
    rows, share = LAYOUTS[layout]
    if path == "packed" and "A" in trains:
        pytest.skip("packed is for a frozen A")
    assert_same(Case(rows, 12, 5, 3, (2, 4), share=share, trains=trains), path, 1e-10)


@settings(max_examples=40, deadline=None)
@given(
    d_out=st.integers(1, 40), d_in=st.integers(1, 40), rank=st.integers(1, 9), path=st.sampled_from(FORCED),
    shape=st.lists(st.integers(0, 6), max_size=3), trains=st.sampled_from(["B", "A", "AB"]), seed=st.integers(0, 99),
    dtype_and_tolerance=st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-4)]),
)  # fmt: skip
def test_random_shapes_equal_the_dense_formula(d_out, d_in, rank, path, shape, trains, seed, dtype_and_tolerance):
    dtype, tolerance = dtype_and_tolerance
    if path == "packed":
        trains = "B"
    case = Case([Rows(0, d_out)], d_out, d_in, rank, shape, dtype=dtype, trains=trains, seed=seed)
    assert_same(case, path, tolerance)


@pytest.mark.parametrize("path", FORCED)
def test_fp32_at_transformer_scale_is_within_1e_5_of_fp64(path):
    rows = [Rows(0, 96), Rows(96, 96), Rows(192, 96)]
    single = Case(rows, 288, 96, 8, (2, 64), dtype=torch.float32)
    double = Case(rows, 288, 96, 8, (2, 64))
    scale = double.dense().abs().max()
    assert (single.fast(path) - double.dense()).abs().max() / scale < 1e-5


@pytest.mark.parametrize("path", ["two_gemm", "packed"])
def test_bf16_error_is_within_that_of_the_plain_path(path):
    rows = [Rows(0, 64)]
    half, exact = (Case(rows, 64, 64, 4, (256,), dtype=d) for d in (torch.bfloat16, torch.float64))
    for a, b in zip((half.W, half.x, *half.As, *half.Bs), (exact.W, exact.x, *exact.As, *exact.Bs), strict=True):
        b.data = a.data.double()
    reference = exact.dense()
    error = (half.fast(path).double() - reference).square().mean().sqrt()
    plain = (half.fast("plain").double() - reference).square().mean().sqrt()
    assert error <= 1.05 * plain


@pytest.mark.parametrize("path", ["auto", "two_gemm", "plain"])
def test_autocast_gives_the_autocast_dtype_and_float32_gradients(path):
    case = Case([Rows(0, 12)], 12, 5, 3, (4,), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = case.fast(path)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert case.x.grad.dtype == case.Bs[0].grad.dtype == torch.float32
    expected = torch.autograd.grad(case.dense().sum(), case.Bs[0])[0]
    torch.testing.assert_close(case.Bs[0].grad, expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("path", ["two_gemm", "formed", "packed"])
def test_backward_keeps_h_and_parameters_only(path):
    case = Case([Rows(0, 64)], 64, 32, 4, (100,))
    parameters = {t.data_ptr() for t in (case.W, case.b, *case.As, *case.Bs)}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) if t.data_ptr() not in parameters else None, lambda t: t
    ):
        case.fast(path)
    assert kept == [100 * 4]


def test_non_contiguous_input_gives_the_same():
    case = Case([Rows(0, 12)], 12, 5, 3, (4, 6))
    case.x = torch.randn(5, 6, 4, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    for path in FORCED:
        assert_same(case, path, 1e-10)


@pytest.mark.parametrize("path", FORCED)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0)])
def test_hosts_may_write_into_the_output(path, shape):
    case = Case([Rows(0, 12)], 12, 5, 3, shape)
    out = case.fast(path)
    out += 1
    out.backward(case.g)
    assert case.x.grad.shape == (*shape, 5) and case.Bs[0].grad is not None


def test_no_grad_output_is_the_same():
    case = Case([Rows(0, 12)], 12, 5, 3, (4,))
    for path in FORCED:
        with torch.no_grad():
            torch.testing.assert_close(case.fast(path), case.dense())


def test_double_backward_is_refused_on_a_fast_path_and_works_on_the_plain_one():
    case = Case([Rows(0, 12)], 12, 5, 3, (4,))
    (grad,) = torch.autograd.grad(case.fast("two_gemm").square().sum(), case.x, create_graph=True)
    with pytest.raises(RuntimeError, match="`path: plain`"):
        grad.sum().backward()
    (grad,) = torch.autograd.grad(case.fast("plain").square().sum(), case.x, create_graph=True)
    grad.sum().backward()
    assert case.Bs[0].grad is not None


def test_torch_func_is_refused_on_a_fast_path_and_works_on_the_plain_one():
    case = Case([Rows(0, 12)], 12, 5, 3, (4,))

    def loss(B, path):
        return adapted_linear(case.x.detach(), case.W, case.b, case.As, [B], case.plan(path)).square().sum()

    B = case.Bs[0].detach()
    with pytest.raises(RuntimeError, match=r"torch\.func transforms need `path: plain`"):
        torch.func.grad(loss)(B, "two_gemm")
    torch.testing.assert_close(
        torch.func.grad(loss)(B, "plain"), torch.autograd.grad(case.dense().square().sum(), case.Bs[0])[0]
    )


def test_formed_is_refused_in_half_precision_and_with_dropout():
    case = Case([Rows(0, 12)], 12, 5, 3, (4,), dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="'formed' would round the update away"):
        case.fast("formed")
    case = Case([Rows(0, 12)], 12, 5, 3, (4,))
    for path in ("formed", "packed"):
        with pytest.raises(ValueError, match=f"'{path}'.*drop"):
            adapted_linear(case.x, case.W, case.b, case.As, case.Bs, case.plan(path, 0.1), case.packed(path))


# --- dropout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("trains", ["B", "A", "AB"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_gradients_equal_those_of_a_stored_mask(layout, trains, dtype):
    rows, share = LAYOUTS[layout]
    case, p = Case(rows, 12, 5, 3, (2, 4), share=share, trains=trains, dtype=dtype), 0.3
    torch.manual_seed(3)
    fast = adapted_linear(case.x, case.W, case.b, case.As, case.Bs, case.plan("auto", p))
    torch.manual_seed(3)
    mask = drop(torch.ones(8, 5, dtype=dtype), torch.randint(0, 2**62, ()), p).view(2, 4, 5) / (1 - p)
    assert 0 < (mask == 0).sum() < mask.numel()
    out = F.linear(case.x, case.W, case.b)
    for i, (r, B) in enumerate(zip(case.rows, case.Bs, strict=True)):
        index = r.take(torch.arange(12))
        out = out.index_add(-1, index, SCALING * (case.x * mask) @ case.As[0 if share else i].T @ B.T)
    torch.testing.assert_close(fast, out)
    ours = torch.autograd.grad(fast, case.leaves(), case.g)
    theirs = torch.autograd.grad(out, case.leaves(), case.g)
    torch.testing.assert_close(ours, theirs)


def test_dropout_keeps_neither_input_nor_mask():
    case = Case([Rows(0, 64)], 64, 32, 4, (100,))
    parameters = {t.data_ptr() for t in (case.W, case.b, *case.As, *case.Bs)}
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) if t.data_ptr() not in parameters else None, lambda t: t
    ):
        adapted_linear(case.x, case.W, case.b, case.As, case.Bs, case.plan("auto", 0.05))
    assert sorted(kept) == [1, 100 * 4]  # the seed and h


@pytest.mark.parametrize(
    ("num_tokens", "rank", "d_out", "dropout", "expected"),
    [
        (160, 8, 960, 0.0, ("formed", True)),
        (160, 8, 959, 0.0, ("two_gemm", True)),
        (159, 8, 960, 0.0, ("two_gemm", False)),
        (160, 8, 960, 0.1, ("two_gemm", False)),
    ],
)
def test_auto_forms_the_weight_where_that_is_less_work(num_tokens, rank, d_out, dropout, expected):
    x, weight = torch.randn(num_tokens, 160), torch.randn(d_out, 160)
    plan = Plan((Rows(0, d_out),), (SCALING,), False, dropout, "auto")
    assert choose_path("auto", x, weight, rank, plan, is_packed=False) == expected
    half = choose_path("auto", x.bfloat16(), weight.bfloat16(), rank, plan, is_packed=False)
    assert half == ("two_gemm", False)


def test_few_tokens_take_ordinary_operators():
    weight = torch.randn(8, 8)

    def path(num_tokens, dropout=0.0):
        plan = Plan((Rows(0, 8),), (SCALING,), False, dropout, "auto")
        return choose_path("auto", torch.randn(num_tokens, 8), weight, 2, plan, is_packed=False)[0]

    assert (path(FEW_TOKENS), path(FEW_TOKENS + 1), path(1, dropout=0.1)) == ("plain", "two_gemm", "two_gemm")
    with torch.autocast("cpu", torch.bfloat16):  # which keeps its cast of W in a graph
        assert path(1) == "two_gemm"


# --- through a layer ----------------------------------------------------------------------------------------------


def adapted(path="auto", dropout=0.0, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    inject_adapters(model, AdapterConfig(targets=["0", "2"], rank=2, path=path, dropout=dropout, **kwargs))
    for name, p in model.named_parameters():
        if p.requires_grad:
            nn.init.normal_(p, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_replays_the_same_mask(reentrant):
    model, x = adapted(dropout=0.3), torch.randn(5, 6, requires_grad=True)
    results = []
    for checkpointed in (False, True):
        model.zero_grad()
        torch.manual_seed(1)
        out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant) if checkpointed else model(x)
        out.square().sum().backward()
        results.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("path", ["auto", "two_gemm", "formed", "packed", "plain"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_compiles_without_graph_breaks(path, dropout):
    if dropout and path in ("formed", "packed"):
        pytest.skip("no dropout on this path")
    torch.compiler.reset()
    model, x = adapted(path, dropout), torch.randn(7, 6)
    model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.train(bool(dropout))
    eager_grads, compiled_grads = [], []
    for run, grads in ((model, eager_grads), (compiled, compiled_grads)):
        model.zero_grad()
        torch.manual_seed(2)
        run(x).square().sum().backward()
        grads += [p.grad.clone() for p in model.parameters() if p.requires_grad]
    if not dropout:
        # The eager pass sums in another order (narrow_products.c): as exact, but not where large terms cancel.
        for eager, traced in zip(eager_grads, compiled_grads, strict=True):
            torch.testing.assert_close(eager, traced, rtol=1e-6, atol=1e-6 * eager.abs().max().item())
    assert all(g.abs().sum() > 0 for g in compiled_grads)


def test_compiled_passes_do_not_keep_a_formed_weight_from_one_to_the_other():
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    inject_adapters(model, AdapterConfig(targets=["0", "1", "3"], rank=6))
    # The backend with the partitioner that torch.compile's default has.
    compiled, kept = torch.compile(model, backend="aot_eager_decomp_partition"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        compiled(torch.randn(90, 8)).sum().backward()
    parameters = {p.data_ptr() for p in model.parameters()}
    sizes = [t.numel() for t in kept if t.data_ptr() not in parameters]
    assert sorted(sizes) == [6 * 90] * 3 + [64 * 90]  # three h, and what the GELU reads


def test_packed_weight_and_A_are_views_of_one_matrix_and_survive_a_move():
    model = adapted("packed")
    layer, x = model[0], torch.randn(3, 6)
    before = nn.Sequential(*[adapted("plain")])(x)
    torch.testing.assert_close(model(x), before)
    assert layer.weight.untyped_storage().data_ptr() == layer.adapters["all"].A.untyped_storage().data_ptr()
    model.double().float()
    torch.testing.assert_close(model(x), before)
    with torch.no_grad():
        model.load_state_dict({k: v * 2 for k, v in model.state_dict().items() if "extra" not in k}, strict=False)
    doubled = adapted("plain")
    doubled.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(x), doubled(x), rtol=1e-5, atol=1e-3)


def test_packed_is_refused_where_A_trains_or_is_on_another_device():
    with pytest.raises(ValueError, match="frozen A"):
        adapted("packed", scheme="hB_zero_hA_rand")(torch.randn(3, 6))
    model = adapted("packed")
    model[0].weight = nn.Parameter(model[0].weight.to("meta"), requires_grad=False)
    with pytest.raises(ValueError, match="one device"):
        model(torch.randn(3, 6))


def sparse_case(kind, rows, d_out, d_in, rank, shape, share, dtype, active):
    """A case of which every A is of a kind that needs no product, and what stands for them."""
    case = Case(rows, d_out, d_in, rank, shape, share=share, dtype=dtype)
    found = []
    for i, A in enumerate(case.As):
        rule = init_rule(kind)
        drawn = rule.rows(Draw(active, d_in, d_in, torch.Generator().manual_seed(i)))
        A.zero_()[:active] = drawn.to(A)
        found.append(rule.sparse_rows(A, active))
    return case, tuple(found)


@pytest.mark.parametrize("kind", ["coordinate", "block"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", ["auto", "two_gemm", "formed"])
@pytest.mark.parametrize(("tokens", "active"), [((2, 3), 3), ((5, 4), 3), ((2, 3), 2), ((20,), 1)])
def test_an_A_that_needs_no_product_gives_what_its_product_would(kind, layout, path, tokens, active):
    rows, share = LAYOUTS[layout]
    case, sparse = sparse_case(kind, rows, 12, 11, 3, tokens, share, torch.float64, active)
    assert None not in sparse
    dense = case.dense()
    expected = torch.autograd.grad(dense, case.leaves(), case.g)
    # Whoever reads an A now reads nonsense.
    case.As = [torch.full_like(A, torch.nan) for A in case.As]
    fast = adapted_linear(case.x, case.W, case.b, case.As, case.Bs, case.plan(path)._replace(sparse=sparse))
    torch.testing.assert_close(fast, dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(fast, case.leaves(), case.g), expected, rtol=1e-12, atol=1e-12)
