"""Training with differential privacy: what a step does, what is accounted for, and what is refused."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder, ModelCheckpoint
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import CalibrateA, FreezeA, PrivateTraining
from tests.callbacks.foreign import Foreign, injection, loader, trainer

with_opacus = pytest.mark.skipif(find_spec("opacus") is None, reason="the extra `private` is not installed")


def private(**options) -> PrivateTraining:
    return PrivateTraining(**{"epsilon": 4.0, "delta": 1e-3, "accountant": "rdp", "seed": 5, **options})


def fit(path, *callbacks, module=None, data=None, adapter=None, resume=None, **options):
    seed_everything(0, verbose=False)
    run = trainer(path, injection(adapter=adapter or {}), *callbacks, **options)
    module = module or Foreign()
    run.fit(module, data or loader(), loader(), ckpt_path=resume)
    return run, module


class Watched(Foreign):
    """It keeps each step's batch, its trained parameters before the step, and their gradients in it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = []

    def on_train_batch_start(self, batch, batch_idx):
        self.steps.append([batch, [p.detach().clone() for p in self.trained()]])

    def on_before_optimizer_step(self, optimizer):
        self.steps[-1].append([p.grad.clone() for p in self.trained()])

    def trained(self):
        return [p for p in self.parameters() if p.requires_grad]

    def own_gradients(self, step):
        """Of each sample alone, without dropout, by parameter."""
        (x, y), before, _ = self.steps[step]
        now = [p.detach().clone() for p in self.trained()]
        self.set(before)
        self.eval()
        each = [
            torch.autograd.grad(F.cross_entropy(self(x[i : i + 1]), y[i : i + 1]), self.trained())
            for i in range(len(x))
        ]
        self.set(now)
        return each

    @torch.no_grad()
    def set(self, values):
        for parameter, value in zip(self.trained(), values, strict=True):
            parameter.copy_(value)


@with_opacus
def test_a_step_is_the_noisy_mean_of_clipped_gradients_of_single_samples(tmp_path):
    module, callback = Watched(), private(max_grad_norm=0.5)
    module.net.dropout.p = 0.0
    fit(tmp_path, callback, module=module)
    noise = torch.Generator().manual_seed(6)
    std = callback.noise_multiplier * 0.5
    assert len(module.steps) == 10
    for step, (_, _, gradients) in enumerate(module.steps):
        sums = [torch.zeros_like(gradient) for gradient in gradients]
        for own in module.own_gradients(step):
            norm = torch.cat([gradient.flatten() for gradient in own]).norm()
            for summed, gradient in zip(sums, own, strict=True):
                summed += min(1.0, float(0.5 / norm)) * gradient
        for summed, gradient in zip(sums, gradients, strict=True):
            expected = (summed + torch.normal(0.0, std, gradient.shape, generator=noise)) / 8
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@with_opacus
def test_batches_are_drawn_by_chance_and_may_be_empty(tmp_path):
    module = Watched()
    fit(tmp_path, private(), module=module, data=loader(batch_size=2), max_epochs=3)
    sizes = [len(batch[0]) for batch, *_ in module.steps]
    assert len(sizes) == 60 and 0 in sizes and max(sizes) > 3
    assert 1.4 < sum(sizes) / 60 < 2.6
    assert all(p.isfinite().all() for p in module.parameters())


@with_opacus
@pytest.mark.parametrize("accountant", ["rdp", pytest.param("prv", marks=pytest.mark.slow)])
def test_the_account_is_of_opacus(accountant, tmp_path):
    from opacus.accountants import create_accountant
    from opacus.accountants.utils import get_noise_multiplier

    callback = private(accountant=accountant)
    run, _ = fit(tmp_path, callback)
    expected = get_noise_multiplier(
        target_epsilon=4.0, target_delta=1e-3, sample_rate=0.2, steps=10, accountant=accountant
    )
    account = create_accountant(accountant)
    account.history = [(expected, 0.2, 10)]
    assert callback.noise_multiplier == expected
    assert callback.spent() == pytest.approx(account.get_epsilon(1e-3))
    assert run.callback_metrics["privacy/epsilon"] == pytest.approx(callback.spent())
    assert 3.8 < callback.spent() <= 4.0


@with_opacus
def test_a_resumed_run_has_its_account_and_ends_with_the_same_weights(tmp_path):
    class Broken(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 7:
                raise RuntimeError

    saved = {"dirpath": tmp_path, "filename": "{step}", "every_n_train_steps": 3, "save_top_k": -1}
    whole, module = private(), Foreign()
    fit(tmp_path, whole, module=module)
    with pytest.raises(RuntimeError):
        fit(tmp_path, private(), Broken(), ModelCheckpoint(**saved), enable_checkpointing=True)
    state = torch.load(tmp_path / "step=6.ckpt", weights_only=True)["callbacks"]["PrivateTraining"]
    assert state["history"] == [[whole.noise_multiplier, 0.2, 6]]
    resumed, again = private(), Foreign()
    fit(tmp_path, resumed, module=again, resume=tmp_path / "step=6.ckpt")
    assert resumed.spent() == whole.spent() and resumed.state_dict()["history"] == whole.state_dict()["history"]
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


@with_opacus
def test_what_is_spent_is_spent(tmp_path):
    callback = private()
    run, module = fit(tmp_path, callback)
    with pytest.raises(ValueError, match=r"spent an epsilon of 3.9\d? .* more than `epsilon: 4`"):
        fit(tmp_path, callback)
    run.fit_loop.max_epochs = 3
    with pytest.raises(ValueError, match="after 5 more steps"):
        run.fit(module, loader())


@with_opacus
@pytest.mark.slow
def test_noise_is_secret_without_a_seed(tmp_path):
    (_, one), (_, other) = (fit(tmp_path, private(seed=None)) for _ in range(2))
    assert not torch.equal(one.head.weight, other.head.weight)
    assert private(seed=None).state_dict()["noise"] is None


class Reads(Foreign):
    """It uses a trained weight beside its layer."""

    def forward(self, x):
        return super().forward(x) + self.head.weight.mean(1)


class Unused(Foreign):
    """It leaves its backbone out."""

    def forward(self, x):
        return self.aux(self.head(x))


class Weighted(Foreign):
    """Its loss is a mean by weights of the classes."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y, torch.tensor([1.0, 5.0, 25.0]))


class Normalized(Foreign):
    """It normalises over the batch, with nothing to train."""

    def build(self):
        super().build()
        self.aux = nn.BatchNorm1d(3, affine=False)


class ByHand(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Ragged(Foreign):
    """Its batches bring a tensor that is of no sample."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [*batch, torch.zeros(3)] if self.trainer.training else batch

    def training_step(self, batch, batch_idx):
        return super().training_step(batch[:2], batch_idx)


def drawn_twice():
    data = loader().dataset
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 40, 40)
    return DataLoader(data, 8, sampler=sampler)


REFUSED = {
    "reads": ({"module": Reads}, "`head.weight` gets gradients that are not of calls of its layer"),
    "unused": ({"module": Unused}, "`net.first.adapters.all.factor_B` gets no gradient"),
    "weights": ({"module": Weighted}, "alone and .* in a batch of .*without weights of classes"),
    "batch statistics": ({"module": Normalized}, "`aux` computes with statistics of the batch"),
    "by hand": ({"module": ByHand}, "steps its optimizers by itself"),
    "ragged": ({"module": Ragged}, "tensors of 2 lengths"),
    "LoRA": ({"adapter": {"scheme": "hB_zero_hA_he"}}, "not known for `net.first.adapters.all.factor_A`"),
    "dropout": ({"adapter": {"dropout": 0.1}}, "dropout: 0"),
    "chosen A": (
        {"adapter": {"scheme": "hB_zero_A_gradient"}, "callbacks": [CalibrateA(num_batches=1)]},
        "is drawn from the training data",
    ),
    "accumulation": ({"accumulate_grad_batches": 2}, "accumulates gradients"),
    "accumulation, later": ({"callbacks": [GradientAccumulationScheduler({1: 2})]}, "accumulates gradients"),
    "finder": ({"callbacks": [LearningRateFinder()]}, "leave the finder out"),
    "no end": ({"max_epochs": -1}, "set `max_epochs` or `max_steps`"),
    "sampler": ({"data": drawn_twice}, "has a WeightedRandomSampler, which may leave samples out"),
    "no loader": ({"data": lambda: [torch.zeros(2, 12)]}, "is no `DataLoader`"),
    "two loaders": ({"data": lambda: [loader(), loader()]}, "one training loader, and there are 2"),
}


@with_opacus
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_private_training_is_refused(name, tmp_path):
    options, message = REFUSED[name]
    options = dict(options)
    module = options.pop("module", Foreign)()
    data = options.pop("data", loader)()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, *options.pop("callbacks", []), private(), module=module, data=data, **options)
    assert not any(layer._forward_hooks for layer in module.modules())


@with_opacus
@pytest.mark.slow
def test_it_goes_with_other_callbacks_and_precision(tmp_path):
    _, module = fit(tmp_path, private(), FreezeA(), precision="bf16-mixed")
    assert all(adapter.B.any() for adapter in adapters_by_name(module).values())


def test_options_out_of_range_are_refused():
    for options in ({"epsilon": 0}, {"delta": 1}, {"delta": 0}, {"max_grad_norm": -1}, {"accountant": "gdp"}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            private(**options)


def test_the_extra_is_named_where_opacus_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(ModuleNotFoundError, match=r"`PrivateTraining` needs opacus: pip install .*\[private\]"):
        trainer(tmp_path, private()).fit(Foreign(), DataLoader(TensorDataset(torch.zeros(2, 12))))
