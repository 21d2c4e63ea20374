from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch.distributed._tools.fake_collectives import CollectiveOp, collective_ops
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from asym_lightning.estimate.estimate import Run, estimate_step
from asym_lightning.estimate.fake_model import fake_mode, make_fake
from asym_lightning.estimate.placement import check_strategy, place
from asym_lightning.estimate.unknown_values import UnknownValues
from asym_lightning.sharding import ShardingOptions, shard_module
from tests.estimate.models import build
from tests.two_processes import in_two_processes

KINDS = {"_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter", "allreduce_": "all-reduce"}


class Collectives(TorchDispatchMode):
    """Bytes of each kind of exchange, as torch's own tool counts them."""

    def __init__(self):
        super().__init__()
        self.bytes = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(t is DTensor for t in types):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        if func in collective_ops:
            kind = KINDS[func._schema.name.removeprefix("c10d::")]
            self.bytes[kind] += CollectiveOp.get_comm_tensor_size(func, out, args, kwargs)
        return out


@pytest.fixture
def mesh(request, monkeypatch):
    """So many devices, of which there is none."""
    # Processes that are not there describe no models.
    monkeypatch.setattr("asym_lightning.sharding.fully_shard._check", lambda *args: None)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield init_device_mesh("cpu", (request.param,))
    dist.destroy_process_group()


ARMS = ["hB_zero_A_rand", "hB_zero_hA_he", "full"]
CASES = [
    *(("llama", arm, True) for arm in ARMS),
    ("llama", "hB_zero_A_rand", False),
    ("vit", "hB_zero_A_rand", True),
]


@pytest.mark.parametrize(
    ("mesh", "family", "arm", "reshards"),
    [
        *((4, *case) for case in CASES),
        (7, "llama", "hB_zero_hA_he", True),  # 7 and 100 divide no dimension of the models
        *(pytest.param(devices, *case, marks=pytest.mark.slow) for devices in (100, 1024) for case in CASES),
    ],
    indirect=["mesh"],
)
def test_traffic_and_shards_are_those_of_fsdp2(mesh, family, arm, reshards):
    case = build(family, arm)
    found = estimate_step(
        (fake := build(family, arm)).model,
        fake.batch,
        fake.loss,
        fake.optimizer,
        Run("fsdp2", mesh.size(), is_gpu=False, sharding=ShardingOptions(reshard_after_forward=reshards)),
    )
    with fake_mode(), UnknownValues():  # transformers before 5 asks whether anything is padded
        make_fake(case.model)
        shard_module(case.model, mesh, ShardingOptions(reshard_after_forward=reshards))
        optimizer = case.optimizer()
        with Collectives() as collectives:
            case.loss(case.batch()).backward()
        optimizer.step()
    held = sum(p.to_local().untyped_storage().nbytes() for p in case.model.parameters())
    gradients = sum(p.grad.to_local().nbytes for p in case.model.parameters() if p.grad is not None)
    state = sum(
        (value.to_local() if isinstance(value, DTensor) else value).nbytes
        for values in optimizer.state.values()
        for value in values.values()
    )
    assert found.weights == held + sum(buffer.nbytes for buffer in case.model.buffers())
    assert found.gradients == gradients
    assert found.optimizer_state == state
    assert found.communication == collectives.bytes


@pytest.mark.parametrize("mesh", [4, pytest.param(64, marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize(("arm", "reshards"), [("hB_zero_A_rand", True), ("hB_zero_A_rand", False), ("full", True)])
def test_peak_is_near_that_of_torchs_tracker_of_fsdp2(mesh, arm, reshards):
    options = ShardingOptions(reshard_after_forward=reshards)
    case, fake = build("llama", arm), build("llama", arm)
    case.rows = fake.rows = 64
    run = Run("fsdp2", mesh.size(), is_gpu=False, sharding=options)
    found = estimate_step(fake.model, fake.batch, fake.loss, fake.optimizer, run)
    with fake_mode(), UnknownValues():  # transformers before 5 asks whether anything is padded
        make_fake(case.model)
        shard_module(case.model, mesh, options)
        optimizer, batch = case.optimizer(), case.batch()
        tracker = FSDPMemTracker(case.model, optimizer)
        tracker.track_inputs((batch,))
        with tracker:
            loss = case.loss(batch)
            loss.backward()
            optimizer.step()
    measured = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert found.peak == pytest.approx(measured, rel=0.1)


def test_reduced_gradients_of_b_only_are_half_of_loras():
    traffic = {}
    for arm in ("hB_zero_A_rand", "hB_zero_hA_he"):
        case = build("vit", arm)
        with fake_mode():
            make_fake(case.model)
            for head in (case.model.head.weight, case.model.head.bias):
                head.requires_grad_(False)
            traffic[arm] = place(case.model, case.optimizer(), "ddp", 8).communication["all-reduce"]
    # A (4, d_in) and B (d_out, 4): qkv and mlp mirror each other, but A has one for each of q, k and v.
    assert traffic["hB_zero_A_rand"] < 0.51 * traffic["hB_zero_hA_he"]


def bytes_of_buckets(arm):
    case = build("vit", arm, "cpu")
    case.model = torch.nn.parallel.DistributedDataParallel(case.model)
    seen = []

    def exchange(state, bucket):
        seen.append(bucket.buffer().nbytes)
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    case.model.register_comm_hook(None, exchange)
    case.loss(case.batch()).backward()
    return sum(seen)


@pytest.mark.parametrize("arm", ["hB_zero_A_rand", "full"])
def test_all_reduced_bytes_are_those_of_ddp_in_two_processes(arm):
    case = build("vit", arm)
    with fake_mode():
        make_fake(case.model)
        found = place(case.model, case.optimizer(), "ddp", 2)
    assert [outcome.value for outcome in in_two_processes(_in_group, arm)] == 2 * [found.communication["all-reduce"]]


def _in_group(arm):
    dist.init_process_group("gloo")
    try:
        return bytes_of_buckets(arm)
    finally:
        dist.destroy_process_group()


def test_fsdp1_shards_flat_units_and_gathers_in_autocasts_dtype():
    case = build("llama")
    with fake_mode():
        make_fake(case.model)
        optimizer = case.optimizer()
        one, eight = (place(case.model, optimizer, "fsdp", devices) for devices in (1, 8))
        half = place(case.model, optimizer, "fsdp", 8, gather_dtype=torch.bfloat16)
    whole = sum(p.nbytes for p in case.model.parameters())
    assert one.communication["all-gather"] > whole and one.weights >= whole
    assert eight.weights == pytest.approx(one.weights / 8, rel=0.01)
    assert half.communication["all-gather"] == pytest.approx(eight.communication["all-gather"] / 2, rel=0.01)
    # Only adapters are reduced: nothing of the frozen base.
    trained = sum(p.nbytes for p in case.model.parameters() if p.requires_grad)
    assert eight.communication["reduce-scatter"] < 2.2 * trained


@pytest.mark.parametrize(
    ("strategy", "devices", "message"),
    [
        ("fsdp3", 1, "must be one of single, ddp, fsdp, fsdp2, not 'fsdp3'"),
        ("ddp", 0, "at least 1, not 0"),
        ("single", 2, "is for one device, not 2"),
    ],
)
def test_bad_strategies_are_refused(strategy, devices, message):
    with pytest.raises(ValueError, match=message):
        check_strategy(strategy, devices)


def test_fsdp_of_one_device_is_fine():
    check_strategy("fsdp", 1)
    check_strategy("fsdp2", 1)
