"""Each private name of another package does what it is relied on for, and no other file has one."""

import ast
import re
from importlib import import_module
from pathlib import Path

import datasets
import pytest
import torch
import transformers as tf
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loops import evaluation_loop, fit_loop
from lightning.pytorch.plugins import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import _CHECKPOINT_WRAPPED_MODULE
from torch.distributed.fsdp._common_utils import FSDP_PREFIX
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, SequentialSampler
from torchmetrics import MeanMetric

import asym_lightning
from asym_lightning.core import private_names as names
from tests.audio_stand_ins import tiny_wav2vec2_config

PACKAGE = Path(asym_lightning.__file__).parent
FILES = {
    str(path.relative_to(PACKAGE.parent).with_suffix("")).replace("/", "."): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Of every NamedTuple, with an underscore to leave names free; and of `os`, where it is documented.
PUBLIC = {"_asdict", "_fields", "_make", "_replace", "_exit"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC


def defined(tree):
    """Names that a file gives to something of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def used(tree):
    """Names that a file reads of something else, by attribute, string or import, unless it is the package's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            yield from (value.value for value in node.args[1:2] if isinstance(value, ast.Constant))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("asym_lightning"):
            yield from node.module.split(".")
            yield from (alias.name for alias in node.names)


def test_what_torch_compiles_is_known_in_a_wrapper_and_in_place():
    plain, wrapped, in_place = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)
    wrapped[0] = torch.compile(wrapped[0])
    in_place.compile()
    assert [names.is_compiled(module) for module in (plain, wrapped, in_place)] == [False, True, True]


def test_private_names_of_others_are_in_one_file():
    trees = {module: tree for module, tree in FILES.items() if module != names.__name__}
    relied_on = set(filter(is_private, used(FILES[names.__name__])))
    assert {"_unsafe_view", "_subclasses", "_fingerprint", "_trainer"} <= relied_on
    # What some file calls its own is not looked for in others, unless it is a name of others that is known.
    ours = {name for tree in trees.values() for name in defined(tree)} - relied_on
    found = {}
    for module, tree in trees.items():
        overridden = names.OVERRIDDEN.get(module, "").rpartition(".")[2]
        found[module] = set(filter(is_private, used(tree))) - ours - {overridden, *defined(tree)}
    assert {module: found for module, found in found.items() if found} == {}  # move them to core/private_names.py


@pytest.mark.parametrize(("module", "name"), names.OVERRIDDEN.items())
def test_what_is_overridden_is_there(module, name):
    place, _, method = name.rpartition(".")
    package, _, owner = place.rpartition(".")
    assert hasattr(getattr(import_module(package), owner), method)
    assert any(method in defined(node) for node in ast.walk(FILES[module]) if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize(
    "move", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.float()]
)
def test_moving_a_module_passes_through_apply_of_those_inside(move):
    passed = []

    class Inner(nn.Linear):
        def _apply(self, fn, recurse=True):
            passed.append(self)
            return super()._apply(fn, recurse)

    move(nn.Sequential(Inner(2, 2)))
    assert len(passed) == 1


def test_the_command_line_seeds_by_set_seed():
    seeded = []

    class CLI(LightningCLI):
        def _set_seed(self):
            seeded.append(torch.initial_seed())

        def instantiate_classes(self):
            assert seeded

    torch.manual_seed(3)
    CLI(run=False, args=["--seed_everything=7"], model_class=BoringModel)
    assert seeded == [torch.initial_seed()] == [3]


def test_unsafe_view_may_be_written_to_in_place():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return names.unsafe_view(2 * x, (2, 3))

        @staticmethod
        def backward(ctx, g):
            return 2 * g.reshape(6)

    x = torch.ones(6, requires_grad=True)
    out = Doubled.apply(x)
    out += 1
    out.sum().backward()
    assert torch.equal(out, torch.full((2, 3), 3.0)) and torch.equal(x.grad, torch.full((6,), 2.0))


def test_fake_tensors_have_shapes_and_no_numbers():
    with names.FakeTensorMode():
        x = torch.ones(1000, 1000) @ torch.ones(1000, 7)
        assert x.shape == (1000, 7)
        with pytest.raises(names.DataDependentOutputException):
            names.local_scalar_dense(x.sum())


def test_a_dispatch_mode_sees_the_operators():
    seen = []

    class Watch(names.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.zeros(3)
    with Watch():
        x.sum().item()
        torch.ops.aten._index_put_impl_(x, [torch.tensor([1])], torch.ones(1))
        logits = torch.zeros(4, 1, 3, requires_grad=True)
        torch.ctc_loss(logits, torch.ones(1, 2).long(), (4,), (2,)).backward()
    used = {names.local_scalar_dense, names.index_put_impl_, names.ctc_loss, names.ctc_loss_backward}
    assert used <= set(seen)


@pytest.mark.parametrize("kernel", [names.flash_attention, names.efficient_attention])
def test_attention_kernels_give_shapes_to_fake_tensors(kernel):
    with names.FakeTensorMode():
        q = torch.ones(2, 4, 10, 16)
        arguments = (None, True) if kernel is names.efficient_attention else ()
        out = kernel(q, q, q, *arguments, 0.0, False, scale=None)[0]
    assert out.shape == q.shape


def test_a_tensor_can_be_used_without_its_own_torch_function():
    class Refusing(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            raise AssertionError("asked")

    tensor = torch.ones(2).as_subclass(Refusing)
    with names.without_torch_function():
        assert tensor.sum().item() == 2
    with pytest.raises(AssertionError, match="asked"):
        tensor.sum()


def test_a_grouped_product_is_one_for_each_group():
    x, weights = torch.randn(8, 16), torch.randn(2, 16, 16)
    ends = torch.tensor([3, 8], dtype=torch.int32)
    product = names.grouped_mm(x.bfloat16(), weights.bfloat16(), offs=ends).float()
    torch.testing.assert_close(product, torch.cat([x[:3] @ weights[0], x[3:] @ weights[1]]), atol=0.2, rtol=0.05)


def test_a_grouped_product_by_its_public_name_asks_tensors_by_its_private_one():
    asked = []

    class Asked(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            asked.append(func)

    ends = torch.tensor([3, 8], dtype=torch.int32)
    nn.functional.grouped_mm(torch.ones(8, 16), torch.ones(2, 16, 16).as_subclass(Asked), offs=ends)
    assert asked == [names.grouped_mm]


def test_a_child_may_have_the_name_of_a_parameter():
    module, child = nn.Linear(2, 2), nn.ReLU()
    names.set_child(module, "weight", child)
    assert dict(module.named_children()) == {"weight": child} and module.weight is module.get_parameter("weight")
    names.set_child(module, "weight", None)
    assert not list(module.children()) and "weight" in dict(module.named_parameters())


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_a_convolution_computes_with_another_weight(padding_mode):
    layer, other = (nn.Conv2d(2, 3, 3, padding=1, padding_mode=padding_mode) for _ in range(2))
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(names.own_convolution(layer, x, other.weight, other.bias), other(x))


def test_a_config_of_transformers_says_how_experts_multiply():
    assert names.experts_implementation(None) is None
    config = tf.MixtralConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2,
    )  # fmt: skip
    assert names.experts_implementation(tf.MixtralModel(config).config) in (None, "eager", "batched_mm", "grouped_mm")


def test_accelerate_says_that_a_layer_is_offloaded():
    hooks = pytest.importorskip("accelerate.hooks")
    layer = nn.Linear(2, 2)
    assert not names.is_offloaded(layer)
    hooks.add_hook_to_module(layer, hooks.AlignDevicesHook("cpu", offload=True))
    assert names.is_offloaded(layer)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_module_says_that_its_calls_are_watched(register):
    layer = nn.Linear(2, 2)
    handle = getattr(layer, register)(lambda *args: None)
    assert names.has_hooks(layer)
    handle.remove()
    assert not names.has_hooks(layer)


def test_wrappers_call_what_they_wrap_by_these_names():
    compiled = next(iter(torch.compile(nn.Linear(2, 2)).named_children()))[0]
    assert (FSDP_PREFIX.removesuffix("."), compiled, _CHECKPOINT_WRAPPED_MODULE) == names.WRAPPED


def test_edits_of_a_tensor_are_counted():
    tensor = torch.zeros(2)
    before = names.num_edits(tensor)
    tensor.add_(1)
    tensor.view(1, 2)[0] = 3
    tensor.sum()
    assert names.num_edits(tensor) == before + 2


def test_ddp_leaves_out_what_it_is_told_to(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        assert names.left_out_of_ddp(module) == set()
        names.leave_out_of_ddp(module, ["0.weight", "0.bias"])
        assert names.left_out_of_ddp(module) == {"0.weight", "0.bias"}
        ddp = DistributedDataParallel(module)
        assert ddp.parameters_to_ignore == {"0.weight", "0.bias"}
    finally:
        torch.distributed.destroy_process_group()


def test_a_module_knows_its_trainer_or_that_it_has_none():
    module = LightningModule()
    assert names.trainer_of(module) is None
    module.trainer = trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    assert names.trainer_of(module) is trainer


@pytest.mark.parametrize(("strategy", "ends"), [("ddp", False), ("ddp_spawn", True), ("ddp_fork", True)])
def test_a_launcher_with_processes_of_its_own_knows_how_it_starts_them(strategy, ends):
    trainer = Trainer(strategy=strategy, devices=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert names.ends_with_its_processes(trainer.strategy.launcher) == ends


def test_batches_of_indices_come_from_index_sampler():
    class Backwards(DataLoader):
        @property
        def _index_sampler(self):
            return list(super()._index_sampler)[::-1]

    for workers in (0, 1):
        loader = Backwards(torch.arange(4), batch_size=2, num_workers=workers)
        assert [batch.tolist() for batch in loader] == [[2, 3], [0, 1]]


def test_a_loader_keeps_persistent_workers_and_has_all_ways_to_iterate():
    loader = DataLoader(torch.arange(4), num_workers=1, persistent_workers=True)
    assert not names.keeps_workers(loader)
    assert len(list(loader)) == 4
    assert names.keeps_workers(loader)
    assert all(hasattr(DataLoader, way) for way in names.WAYS_TO_ITERATE)


def test_lightning_holds_the_sampler_that_it_shares_out():
    sampler = SequentialSampler(range(4))
    shared = DistributedSamplerWrapper(sampler, num_replicas=2, rank=0)
    assert names.shared_sampler(shared.dataset) is sampler
    assert names.shared_sampler([0, 1]) is None


class Asked(Callback):
    """Asks the fit loop in its hooks, as a resumed run does."""

    def __init__(self):
        self.fetched, self.is_due, self.keeps, self.logged = [], [], [], []

    def on_train_start(self, trainer, module):
        self.fetched.append(names.data_fetcher(trainer) is not None)

    def on_train_batch_end(self, trainer, module, *args):
        self.is_due.append(names.validation_is_due(trainer))
        self.keeps.append(names.accumulates(trainer))
        self.logged.append(trainer.fit_loop.epoch_loop._batches_that_stepped)
        names.count_step_for_loggers(trainer)
        self.logged.append(trainer.fit_loop.epoch_loop._batches_that_stepped)


@pytest.mark.parametrize("mode", ["min_size", "max_size_cycle", "max_size", "sequential"])
def test_a_combined_loader_says_how_it_puts_batches_together(mode):
    assert names.loading_mode(CombinedLoader({"a": [1], "b": [2, 3]}, mode)) == mode


def test_the_fit_loop_says_what_comes_after_a_batch():
    asked = Asked()
    trainer = Trainer(
        max_epochs=1, limit_train_batches=4, limit_val_batches=1, val_check_interval=2, accumulate_grad_batches=2,
        callbacks=[asked], logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(BoringModel())
    assert asked.fetched == [True]
    assert asked.is_due == asked.keeps[::-1] == [False, True, False, True][: len(asked.is_due)]
    assert [after - before for before, after in zip(asked.logged[::2], asked.logged[1::2], strict=True)] == [1] * 4


def test_loops_take_themselves_for_interrupted_where_they_are_told():
    loop = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop
    names.set_restart_stage(loop, fit_loop.RestartStage.RESTARTED_MID_EPOCH)
    assert loop.restarted_mid_epoch
    validation = loop.epoch_loop.val_loop
    names.set_restart_stage(validation, evaluation_loop.RestartStage.RESTARTED_MID_EVALUATION)
    assert validation.restarted_mid_evaluation
    loop.epoch_loop.restarting = True
    assert validation.restarting
    names.take_for_begun(loop.epoch_loop)
    assert not loop.epoch_loop.restarting and validation.restarting


def test_a_wrapping_checkpoint_io_writes_by_another():
    outer, inner = AsyncCheckpointIO(TorchCheckpointIO()), TorchCheckpointIO()
    names.set_inner_checkpoint_io(outer, inner)
    assert outer.checkpoint_io is inner


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_logger_takes_the_version_that_it_has_not_chosen_yet(kind, tmp_path):
    logger = kind(tmp_path, name="x")
    assert names.chooses_version(logger)
    names.set_version(logger, "version_3")
    assert not names.chooses_version(logger)
    names.set_version(logger, None)
    assert names.chooses_version(logger)
    names.set_version(logger, "version_3")
    assert logger.log_dir == str(tmp_path / "x" / "version_3")


@pytest.fixture
def model():
    config = tf.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9)
    return tf.BertModel(config)


def test_a_model_of_transformers_initialises_a_layer(model):
    layer = nn.Linear(8, 8)
    nn.init.constant_(layer.bias, 5.0)
    names.weight_initializer(model)(layer)
    assert not layer.bias.any()
    assert names.weight_initializer(nn.Linear(2, 2)) is None


@pytest.mark.skipif(tf.__version__ < "5", reason="transformers before 5 says what is tied, and not to what")
def test_transformers_says_what_is_tied_by_name():
    assert names.ties_by_name(tf.BertForMaskedLM(tf.BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=0)))
    assert not names.ties_by_name(tf.BertModel(tf.BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=0)))


def test_a_model_of_transformers_names_what_stays_in_float32(model):
    assert names.kept_in_float32(model) == set()
    t5 = tf.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)
    assert names.kept_in_float32(tf.T5EncoderModel(t5)) == {"wo"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_config_of_transformers_knows_its_attention(model, attention):
    model = tf.BertModel._from_config(model.config, attn_implementation=attention)
    assert names.attention_implementation(model.config) == attention


def test_a_speech_encoder_counts_its_steps():
    model = tf.Wav2Vec2ForCTC(tiny_wav2vec2_config()).eval()
    for count in (400, 413):
        assert int(names.num_frames(model, torch.tensor(count))) == model(torch.zeros(1, count)).logits.shape[1]


def test_a_data_set_has_a_fingerprint_by_its_rows():
    one, same, other = (datasets.Dataset.from_dict({"x": x}) for x in ([1, 2], [1, 2], [1, 3]))
    assert names.fingerprint(one) == names.fingerprint(same) != names.fingerprint(other)


def test_a_metric_takes_a_number_of_updates():
    metric = MeanMetric()
    names.set_num_updates(metric, 3)
    assert metric.update_called and metric.update_count == 3


def test_calibration_bins_hold_the_samples_by_confidence():
    confidences, accuracies = torch.tensor([0.3, 0.7, 0.9, 1.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    accuracy, confidence, share = names.calibration_bins(confidences, accuracies, 2)
    assert accuracy.tolist() == [1.0, 0.5, 1.0]
    assert confidence.tolist() == pytest.approx([0.3, 0.8, 1.0])
    assert share.tolist() == [0.25, 0.5, 0.25]


def test_versions_are_bounded_from_above():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    packages = ("torch", "lightning", "torchmetrics", "transformers", "datasets", r"jsonargparse\[signatures\]")
    for package in packages:
        assert re.search(rf'"{package}>=[\d.]+,<[\d.]+"', text), package
