"""Adapted models as graphs: compiled whole, for any number of tokens, and exported."""

import copy

import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters
from asym_lightning.adapters.kernels.plan import FEW_TOKENS
from asym_lightning.adapters.rank.change import set_rank
from asym_lightning.adapters.rank.groups import rank_groups
from tests.adapters.models import perturb


def adapted(width: int = 8, **options) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2))
    inject_adapters(model, AdapterConfig(**{"rank": 2, "targets": ["0"], "heads": ["2"], **options}))
    perturb(model)
    return model.eval()


@pytest.mark.parametrize("path", ["auto", "packed", "plain"])
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad], ids=["inference_mode", "no_grad"])
def test_compiles_whole_where_no_gradients_are_wanted(context, path):
    torch.compiler.reset()
    model = adapted(path=path, dropout=0.0 if path == "packed" else 0.1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with context():
        for num_tokens in (4, 9, 20):
            x = torch.randn(num_tokens, 8)
            torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_is_not_compiled_anew_for_each_length(dropout):
    torch.compiler.reset()
    model, counted = adapted(dropout=dropout).train(), []

    def backend(graph, inputs):
        counted.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for num_tokens in (9, 10, 11, 13, 14, 19, 23):
        compiled(torch.randn(num_tokens, 8)).sum().backward()
    assert len(counted) == 2  # one length, and any


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    "scheme", ["hB_zero_A_rand", "hA_rand_B_U", "hA_rand_hB_zero", "hB_zero_A_coordinate", "hB_zero_A_block"]
)
def test_one_graph_trains_and_one_evaluates_at_all_lengths_and_ranks(scheme, dropout):
    torch.compiler.reset()
    model, counted = adapted(scheme=scheme, dropout=dropout, max_rank=6), []
    expected = copy.deepcopy(model)

    def backend(graph, inputs):
        counted.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)

    def run(is_training: bool) -> int:
        for one in (model, expected):
            one.train(is_training)
        for num_tokens in (9, 10, 13, 20, 64):
            x, results = torch.randn(num_tokens, 8), []
            for called, one in ((compiled, model), (expected, expected)):
                one.zero_grad()
                torch.manual_seed(num_tokens)
                out = called(x)
                out.square().sum().backward()
                results.append([out, *(p.grad for p in one.parameters() if p.requires_grad)])
            for ours, plain in zip(*results, strict=True):
                torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4)
        return len(counted)

    assert run(is_training=True) == 1
    assert run(is_training=False) == 2
    for rank in (4, 6, 3):
        for one in (model, expected):
            for group in rank_groups(one).values():
                set_rank(group, rank, [], step=0)
            perturb(one)  # so that new columns count
        assert run(is_training=True) == run(is_training=False) == 2


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_layers_that_are_called_more_than_once_are_in_one_graph(dropout):
    torch.compiler.reset()
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    inject_adapters(model, AdapterConfig(rank=2, targets=["0", "1"], heads=["2"], dropout=dropout))
    counted = []

    def backend(graph, inputs):
        counted.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: model(x) + model(2 * x), fullgraph=True, dynamic=True, backend=backend)
    for num_tokens in (80, 90, 70):
        compiled(torch.randn(num_tokens, 8)).sum().backward()
    assert len(counted) == 1


@pytest.mark.parametrize("is_tuned", [True, False], ids=["gradients", "no_grad"])
def test_exports_with_any_number_of_tokens(is_tuned):
    model = adapted(path="packed")
    size = {0: torch.export.Dim("batch")}
    with torch.set_grad_enabled(is_tuned):
        program = torch.export.export(model, (torch.randn(4, 8),), dynamic_shapes=(size,))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert all(name.startswith("aten.") for name in names)
    for num_tokens in (2, 7, 30):
        x = torch.randn(num_tokens, 8)
        torch.testing.assert_close(program.module()(x), model(x))


def test_traces_to_operators_that_others_know():
    model = adapted()
    traced = torch.jit.trace(model, torch.randn(4, 8))
    assert "PythonOp" not in str(traced.inlined_graph)
    x = torch.randn(30, 8)
    torch.testing.assert_close(traced(x), model(x))


def test_a_packed_layer_that_is_first_called_in_inference_mode_trains_afterwards():
    model = adapted(path="packed")
    expected = copy.deepcopy(model)
    x = torch.randn(4, 8)
    with torch.inference_mode():
        model(x)
    for one in (model, expected):
        one(x).square().sum().backward()
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad)


def test_a_gradient_of_a_gradient_names_the_path_that_has_one():
    x = torch.randn(FEW_TOKENS + 1, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(adapted()(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="set `path: plain` in the adapter's configuration"):
        gradient.square().sum().backward()
    (gradient,) = torch.autograd.grad(adapted(path="plain")(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_of_a_model_in_half_precision_train_in_float32(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2)).to(dtype)
    inject_adapters(model, AdapterConfig(rank=2, targets=["0"], heads=["2"]))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model[0].weight.dtype == dtype
    out = model(torch.randn(3, 8, dtype=dtype))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert model.to(dtype)[2].weight.dtype == torch.float32  # and stays so
