import warnings
from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.cli import ReduceLROnPlateau
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.modules import AdapterModule, StepOutput, TorchSchedule, WarmupSchedule


class Backbone(nn.Module):
    """Two layers, batch normalisation, dropout, a head, and a layer that `forward` never calls."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(self.second(self.dropout(self.norm(self.first(x)).relu())).relu())


class Regressor(AdapterModule):
    """All that a new task has to write."""

    def build_backbone(self, source):
        if isinstance(source, nn.Module):
            return source
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same weights each time, as pretrained ones would be
            return Backbone()

    def build_metrics(self):
        return MetricCollection({"mae": MeanAbsoluteError()})

    def step(self, batch):
        x, y = batch
        predictions = self(x)
        return StepOutput(F.mse_loss(predictions, y), predictions, y)


ADAPTER = AdapterConfig(rank=2, targets=["first", "second"], heads=["head"])


def loader(n=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def trainer(tmp_path, **kwargs):
    defaults = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(default_root_dir=tmp_path, accelerator="cpu", **{**defaults, **kwargs})


def fitted(tmp_path, module, **kwargs):
    run = trainer(tmp_path, **kwargs)
    run.fit(module, loader(), loader())
    return run


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module, before):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.fixture(autouse=True)
def seed():
    L.seed_everything(0, verbose=False)


@pytest.fixture
def module():
    return Regressor("backbone", ADAPTER, optimizer=partial(torch.optim.AdamW, lr=0.01))


def test_fit_changes_the_trained_factors_and_the_head_and_nothing_else(tmp_path, module):
    module.configure_model()
    before = snapshot(module)
    fitted(tmp_path, module)
    assert changed(module, before) == {
        "backbone.first.adapters.all.factor_B",
        "backbone.second.adapters.all.factor_B",
        "backbone.head.weight",
        "backbone.head.bias",
    }


def test_full_fine_tuning_changes_everything_that_is_called(tmp_path):
    module = Regressor("backbone", train_backbone=True)
    module.configure_model()
    before = snapshot(module)
    fitted(tmp_path, module)
    unchanged = set(before) - changed(module, before)
    assert unchanged == {"backbone.unused.weight", "backbone.unused.bias"}


def test_configure_model_is_idempotent_and_usable_without_a_trainer(module):
    module.configure_model()
    before = snapshot(module)
    backbone = module.backbone
    module.configure_model()
    assert module.backbone is backbone
    assert changed(module, before) == set()
    assert module(torch.zeros(3, 6)).shape == (3, 1)


def test_adapter_with_a_trained_backbone_is_refused():
    with pytest.raises(ValueError, match=r"`train_backbone: true` .* cannot be combined with an `adapter`"):
        Regressor("backbone", ADAPTER, train_backbone=True)


def test_a_failed_injection_leaves_nothing_half_built():
    module = Regressor("backbone", AdapterConfig(rank=7, targets=["first"], heads=["head"]))
    with pytest.raises(ValueError, match="`first`"):
        module.configure_model()
    assert not hasattr(module, "backbone")


def test_optimizer_holds_what_trains_and_decays_matrices_only(module):
    module.configure_model()
    optimizer = module.configure_optimizers()
    decayed, plain = optimizer.param_groups
    layers = adapter_layers(module)
    assert {id(p) for p in decayed["params"]} == {
        id(module.backbone.head.weight),
        *(id(layer.adapters["all"].B) for layer in layers.values()),
    }
    assert [id(p) for p in plain["params"]] == [id(module.backbone.head.bias)]
    assert decayed["weight_decay"] > 0
    assert plain["weight_decay"] == 0


def test_nothing_to_train_is_refused():
    module = Regressor("backbone", AdapterConfig(rank=2, targets=["first"], heads=["head"]))
    module.configure_model()
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing trains"):
        module.configure_optimizers()


def test_frozen_batch_norm_stays_in_eval_mode_and_dropout_does_not(module):
    module.configure_model()
    module.train()
    assert not module.backbone.norm.training
    assert module.backbone.dropout.training
    module.eval()
    assert not module.backbone.dropout.training


def test_trained_batch_norm_is_in_training_mode():
    module = Regressor("backbone", train_backbone=True)
    module.configure_model()
    assert module.backbone.norm.training


def test_layer_that_is_never_called_stops_the_fit_by_name(tmp_path):
    module = Regressor("backbone", AdapterConfig(rank=2, targets=["second", "unused"], heads=["head"]))
    with pytest.raises(RuntimeError, match=r"1 adapters? .*no gradient.* unused"):
        fitted(tmp_path, module)


@pytest.mark.parametrize("scheme", ["B_rand_hA_zero", "hB_zero_hA_he"])
def test_factors_that_start_at_zero_gradient_are_not_mistaken_for_unused(tmp_path, scheme):
    fitted(tmp_path, Regressor("backbone", AdapterConfig(scheme, rank=2, targets=["first"], heads=["head"])))


def test_metrics_and_losses_are_logged_under_their_stage(tmp_path, module):
    run = fitted(tmp_path, module)
    assert {"train/loss", "train/mae", "val/loss", "val/mae"} == set(run.callback_metrics)
    run.test(module, loader(), verbose=False)
    assert {"test/loss", "test/mae"} == set(run.callback_metrics)


def test_logged_metric_is_over_the_epoch_and_not_a_mean_of_batches(tmp_path, module):
    data = DataLoader(TensorDataset(*loader(10).dataset.tensors), batch_size=4)  # batches of 4, 4 and 2
    run = trainer(tmp_path)
    run.validate(module, data, verbose=False)
    x, y = data.dataset.tensors
    module.eval()
    expected = (module(x) - y).abs().mean()
    assert run.callback_metrics["val/mae"] == pytest.approx(expected.item(), rel=1e-5)


def test_warmup_schedule_spans_the_run_by_steps(tmp_path):
    rates = []

    class Recorder(L.Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    module = Regressor(
        "backbone",
        ADAPTER,
        optimizer=partial(torch.optim.SGD, lr=1e-3),
        scheduler=WarmupSchedule(warmup=0.25, decay="linear"),
    )
    fitted(tmp_path, module, callbacks=[Recorder()])  # 2 epochs of 4 steps
    expected = [1e-3 * WarmupSchedule(warmup=0.25, decay="linear").factor(step, 8) for step in range(8)]
    assert rates == pytest.approx(expected)


def test_warmup_schedule_in_an_endless_run_is_refused(tmp_path):
    module = Regressor("backbone", ADAPTER, scheduler=WarmupSchedule())
    with pytest.raises(ValueError, match="set `max_epochs` or `max_steps`"):
        fitted(tmp_path, module, max_epochs=-1)


def test_torch_scheduler_moves_once_an_epoch(tmp_path):
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    module = Regressor("backbone", ADAPTER, optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=scheduler)
    run = fitted(tmp_path, module, limit_train_batches=1)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)


class Rates(L.Callback):
    """The rate of each step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, *args):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_schedule_of_torch_moves_each_step_where_it_is_asked_to(tmp_path):
    rates = Rates()
    make = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=8)
    fitted(tmp_path, Regressor("backbone", ADAPTER, scheduler=TorchSchedule(make)), callbacks=[rates])
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    schedule, expected = make(optimizer), []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(expected) < 8 else None
    assert rates.rates == pytest.approx(expected)


def test_a_plateau_is_looked_for_where_the_metric_is(tmp_path):
    make = partial(ReduceLROnPlateau, monitor="val/loss", patience=0, threshold=10.0, factor=0.5)
    schedule = TorchSchedule(make, interval="epoch", frequency=2)
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    module = Regressor("backbone", ADAPTER, optimizer=optimizer, scheduler=schedule)
    run = fitted(tmp_path, module, max_epochs=6, check_val_every_n_epoch=2)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**3)  # at each of three epochs


@pytest.mark.parametrize("schedule", [None, WarmupSchedule(warmup=0.5, decay="linear")], ids=["constant", "warm-up"])
def test_the_learning_rate_finder_sets_the_rate_that_the_schedule_starts_from(schedule, tmp_path):
    module = Regressor("backbone", ADAPTER, optimizer=partial(torch.optim.SGD, lr=1e-5), scheduler=schedule)
    assert module.lr == 1e-5
    rates = Rates()
    finder = LearningRateFinder(1e-6, 1e-2, num_training_steps=20, early_stop_threshold=None)
    run = trainer(tmp_path, callbacks=[finder, rates], max_epochs=1)
    run.fit(module, loader(160))
    assert module.lr == finder.optimal_lr.suggestion()
    assert module.lr not in (None, 1e-5)
    factors = [1.0 if schedule is None else schedule.factor(step, 40) for step in range(40)]
    assert rates.rates == pytest.approx([module.lr * factor for factor in factors])


def test_checkpoint_holds_what_was_trained_and_no_backbone(tmp_path, module):
    run = fitted(tmp_path, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    names = {name.removeprefix("backbone.") for name in state if not name.endswith("_extra_state")}
    buffers = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert names == buffers | {
        "first.adapters.all.factor_A",
        "first.adapters.all.factor_B",
        "second.adapters.all.factor_A",
        "second.adapters.all.factor_B",
        "head.weight",
        "head.bias",
    }


def test_load_from_checkpoint_rebuilds_the_module(tmp_path):
    module = Regressor("backbone", ADAPTER, scheduler=WarmupSchedule(warmup=0.5))
    run = fitted(tmp_path, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = Regressor.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert loaded.adapter == module.adapter
    assert loaded.scheduler == module.scheduler
    trained = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    for name, tensor in trained.items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_what_was_given_in_python_is_said_to_be_missing(tmp_path):
    optimizer = partial(torch.optim.SGD, lr=1e-3)
    run = fitted(tmp_path, Regressor("backbone", ADAPTER, optimizer=optimizer))
    run.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.warns(UserWarning, match=r"was given `optimizer` in Python.*give `load_from_checkpoint` the same"):
        Regressor.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    fitted(tmp_path / "other", Regressor("backbone", ADAPTER)).save_checkpoint(tmp_path / "y.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Regressor.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True, optimizer=optimizer)
        assert loaded.lr == 1e-3
        Regressor.load_from_checkpoint(tmp_path / "y.ckpt", weights_only=True)  # the default it was


def test_resumed_fit_equals_an_uninterrupted_one(tmp_path):
    def start():
        L.seed_everything(1, verbose=False)
        backbone = Backbone()
        backbone.dropout.p = 0.0  # the state of the random number generator is not what is tested
        return Regressor(backbone, ADAPTER, scheduler=WarmupSchedule(warmup=0.5))

    whole = start()
    fitted(tmp_path, whole, max_epochs=4)

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    trainer(tmp_path, max_epochs=4, callbacks=[Stop()]).fit(start(), loader())

    second = start()
    trainer(tmp_path, max_epochs=4).fit(second, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert changed(second, whole.state_dict()) == set()


def test_checkpoint_that_lacks_a_factor_is_refused_by_name(tmp_path, module):
    run = fitted(tmp_path, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    del checkpoint["state_dict"]["backbone.first.adapters.all.factor_B"]
    torch.save(checkpoint, tmp_path / "y.ckpt")
    before = snapshot(module)
    with pytest.raises(ValueError, match=r"lacks `backbone\.first\.adapters\.all\.factor_B`"):
        trainer(tmp_path).test(module, loader(), ckpt_path=tmp_path / "y.ckpt")
    assert changed(module, before) == set()


def test_checkpoint_of_another_rank_is_refused(tmp_path, module):
    run = fitted(tmp_path, module)
    run.save_checkpoint(tmp_path / "x.ckpt")
    other = Regressor("backbone", AdapterConfig(rank=3, targets=["first", "second"], heads=["head"]))
    with pytest.raises(ValueError, match="`rank` should be 3, found 2"):
        trainer(tmp_path).test(other, loader(), ckpt_path=tmp_path / "x.ckpt")
