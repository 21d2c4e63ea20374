import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from asym_lightning.estimate.estimate import Run, estimate_step
from asym_lightning.estimate.fake_model import fake_mode, make_fake
from asym_lightning.estimate.gpu_operators import GpuOperators
from asym_lightning.estimate.step import trace_step, with_state
from asym_lightning.estimate.unknown_values import UnknownValues
from benchmarks.memory import parameter_bytes, saved_bytes, tensor_bytes
from tests.estimate.models import build

ARMS = ["hB_zero_A_rand", "B_rand_hA_zero", "hB_zero_hA_he", "full"]
CASES = [(family, arm) for family in ("vit", "roberta", "llama") for arm in ARMS]
CPU = Run(is_gpu=False)


def estimate(case, run=CPU):
    return estimate_step(case.model, case.batch, case.loss, case.optimizer, run)


def trace_of_real_step(case, **options):
    optimizer = with_state(case.model, case.optimizer(), is_gpu=False)
    batch = case.batch()
    tensors = batch.values() if isinstance(batch, dict) else [batch]
    return trace_step(case.model, lambda: case.loss(batch), optimizer, batch=tensors, is_gpu=False, **options)


def trace_of_fake_step(case, **options):
    with fake_mode():
        make_fake(case.model)
        return trace_of_real_step(case, **options)


@pytest.mark.parametrize(("family", "arm"), CASES)
def test_weights_gradients_and_optimizer_state_are_those_of_a_real_step(family, arm):
    case = build(family, arm, "cpu")
    found = estimate(build(family, arm))
    optimizer = case.optimizer()
    case.loss(case.batch()).backward()
    optimizer.step()
    buffers = sum(buffer.nbytes for buffer in case.model.buffers())
    assert found.weights == parameter_bytes(case.model) + buffers
    assert found.gradients == sum(p.grad.nbytes for p in case.model.parameters() if p.grad is not None)
    assert found.optimizer_state == tensor_bytes(dict(optimizer.state))
    assert found.parameters == sum(p.numel() for p in case.model.parameters())
    assert found.trained == sum(p.numel() for p in case.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("family", "arm"), CASES)
def test_step_without_numbers_takes_what_a_real_one_takes(family, arm):
    assert trace_of_fake_step(build(family, arm)) == trace_of_real_step(build(family, arm, "cpu"))


def bytes_held(model):
    """Of every tensor that a module or a parameter has, however it keeps it."""
    storages, seen = {}, set()

    def visit(value):
        if id(value) in seen or isinstance(value, (str, bytes, type)):
            return
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
            visit(part)
        if hasattr(value, "__dict__"):
            visit(vars(value))

    visit(model)
    return sum(storages.values())


@pytest.mark.parametrize(("family", "quantization"), [("llama", "nf4"), ("vit", "int8")])
def test_quantised_weights_take_what_bitsandbytes_keeps(family, quantization):
    pytest.importorskip("bitsandbytes")
    case = build(family, device="cpu", quantization=quantization)
    found = estimate(build(family, quantization=quantization))
    dense = estimate(build(family))
    assert found.weights == bytes_held(case.model) < dense.weights
    assert (found.parameters, found.trained) == (dense.parameters, dense.trained)
    assert (found.gradients, found.optimizer_state) == (dense.gradients, dense.optimizer_state)
    assert trace_of_fake_step(build(family, quantization=quantization)) == trace_of_real_step(case)


@pytest.mark.parametrize("family", ["vit", "llama"])
def test_dropout_of_the_adapter_takes_what_a_real_one_takes(family):
    fake = trace_of_fake_step(build(family, dropout=0.1))
    real = trace_of_real_step(build(family, device="cpu", dropout=0.1))
    assert fake.activations == pytest.approx(real.activations, rel=1e-3)
    assert fake.computation == pytest.approx(real.computation, rel=0.05)


@pytest.mark.parametrize(("family", "arm"), CASES)
def test_activations_are_what_autograd_saves(family, arm):
    case = build(family, arm, "cpu")
    batch = case.batch()
    tensors = list(batch.values()) if isinstance(batch, dict) else [batch]
    saved = saved_bytes(lambda: case.loss(batch), [*case.model.parameters(), *case.model.buffers(), *tensors])
    assert estimate(build(family, arm)).activations == pytest.approx(saved, rel=0.04)


@pytest.mark.parametrize(
    ("family", "arm", "quantization"),
    [
        *((family, "hB_zero_A_rand", "") for family in ("vit", "llama")),
        ("llama", "hB_zero_A_rand", "nf4"),
        ("vit", "full", ""),
    ],
)
def test_peak_is_what_the_allocator_gives_out(family, arm, quantization):
    if quantization:
        pytest.importorskip("bitsandbytes")
    # Enough rows for what kernels use inside, which no trace of operators sees, to be little.
    case, fake = (build(family, arm, device, quantization=quantization) for device in ("cpu", "meta"))
    case.rows = fake.rows = 64
    optimizer, batch = case.optimizer(), case.batch()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):  # in the second step the optimizer's state and the gradients of the first are there
            loss = case.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            del loss
            optimizer.step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live, peak = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    found = estimate(fake)
    assert found.peak - found.weights - found.batch == pytest.approx(peak, rel=0.1)


def test_frozen_A_keeps_what_a_frozen_backbone_keeps_and_lora_keeps_inputs():
    b_only, both = (estimate(build("llama", arm)).activations for arm in ("hB_zero_A_rand", "hB_zero_hA_he"))
    assert b_only < 0.8 * both


def test_checkpointing_keeps_less_and_accumulation_holds_gradients():
    plain, checkpointed = build("llama"), build("llama")
    checkpointed.model.gradient_checkpointing_enable({"use_reentrant": False})
    run = Run(is_gpu=True)
    assert estimate(checkpointed, run).activations < 0.5 * estimate(plain, run).activations
    once, many = (trace_of_fake_step(build("vit", "full"), accumulates=accumulates) for accumulates in (False, True))
    assert many.computation > once.computation and many.activations == once.activations


def test_autocast_keeps_half_and_computes_norms_in_float32():
    whole, half = (estimate(build("llama"), Run(autocast=dtype)).activations for dtype in (None, torch.bfloat16))
    assert half < 0.85 * whole
    with fake_mode(), GpuOperators(), torch.autocast("cpu", torch.bfloat16):
        x = torch.zeros(2, 8, dtype=torch.bfloat16)
        assert F.layer_norm(x, (8,)).dtype == torch.float32
        assert F.softmax(x, -1).dtype == torch.float32
        assert F.linear(torch.zeros(2, 8), torch.zeros(8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_gpu_keeps_no_square_of_the_length(dtype, masked):
    with fake_mode(), GpuOperators():
        q, k, v = (torch.zeros(1, 2, 512, 16, dtype=dtype, requires_grad=True) for _ in range(3))
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(id(t), t), lambda t: t):
            mask = torch.zeros(1, 1, 512, 512, dtype=torch.bool) if masked else None
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.1)
        assert out.shape == q.shape and out.dtype == dtype
        # One mask for all heads is kept as numbers, and nothing of the size of all heads' scores.
        assert all(t.untyped_storage().nbytes() <= 512 * 512 * dtype.itemsize for t in kept.values())
        assert any(t.untyped_storage().nbytes() == 512 * 512 * dtype.itemsize for t in kept.values()) == masked


def test_dropout_on_a_gpu_keeps_a_byte_an_entry():
    with fake_mode(), GpuOperators():
        x = torch.zeros(100, requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t), lambda t: t):
            assert F.dropout(x, 0.1).shape == x.shape
            assert F.dropout(x, 0.1, training=False) is x
        assert [t.nbytes for t in kept] == [100]


def test_masks_select_everything_and_questions_are_answered():
    with fake_mode(), UnknownValues():
        x = torch.zeros(3, 4, 5, requires_grad=True)
        mask = torch.zeros(3, 4, dtype=torch.bool)
        assert x[mask].shape == (12, 5)
        x[mask].sum().backward()
        assert x.grad.shape == x.shape
        assert torch.equal(mask, ~mask) and bool(mask.any()) and int(x.detach().max()) == 1
        assert mask.nonzero().shape == (12, 2)


def test_the_loss_of_ctc_takes_what_a_real_one_takes():
    def kept():
        logits = torch.zeros(7, 2, 5, requires_grad=True)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
            loss = F.ctc_loss(logits.log_softmax(-1), torch.ones(2, 3).long(), (7, 6), (3, 2), reduction="none")
        torch.autograd.backward(torch.autograd.graph.get_gradient_edge(loss), torch.ones_like(loss))
        return saved, logits.grad.shape

    real = kept()
    with fake_mode(), UnknownValues():
        assert kept() == real


def test_a_number_that_is_drawn_leaves_no_layer_out():
    with fake_mode(), UnknownValues():
        draw, other = torch.rand([]), torch.zeros([])
        assert not draw < 0.0 and not draw < 0.5 and other < 0.5
