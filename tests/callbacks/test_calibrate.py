"""A chosen by the data of the run."""

from __future__ import annotations

from functools import partial
from itertools import islice

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, reset_adapters
from asym_lightning.adapters.files.backbone import backbone_sample
from asym_lightning.adapters.files.chosen import ChosenA, save_chosen
from asym_lightning.analysis.calibration import adapter_sites, calibration_statistics, drawn_from
from asym_lightning.callbacks import AdapterCheckpoint, BNormMonitor, CalibrateA, FreezeA
from asym_lightning.data import DigitsDataModule, LoaderOptions
from asym_lightning.modules import ImageClassifier
from tests.callbacks.foreign import Foreign, injection, loader, trainer
from tests.two_processes import in_two_processes

RULES = ("inputs", "gradient", "whitened_gradient")


class AtStart(Callback):
    """What the first step starts from; it comes after the other callbacks."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            self.state = {
                name: tensor.clone() for name, tensor in pl_module.state_dict().items() if "extra" not in name
            }


def fit(path, *callbacks, module=None, train=None, adapter=None, **options):
    run = trainer(path, injection(adapter=adapter or {}), *callbacks, **options)
    module = module or Foreign()
    seed_everything(0, verbose=False)
    run.fit(module, train or loader(), loader())
    return run, module


def As(module):
    return {adapter.A_key: adapter.A.detach().clone() for adapter in adapters_by_name(module).values()}


@pytest.mark.parametrize("rule", RULES)
def test_A_is_what_its_rule_draws_from_the_first_batches_and_stays(rule, tmp_path):
    calibrate, at_start = CalibrateA(rule, num_batches=3), AtStart()
    _, module = fit(tmp_path, calibrate, FreezeA(), at_start)
    fresh = Foreign().eval()  # whose dropout is off: in training mode it draws what only the run knows
    config = AdapterConfig(f"hB_zero_A_{rule}", rank=2, targets=["first", "second"])
    inject_adapters(fresh.net, config, draw=False)

    def loss(batch):
        return F.cross_entropy(fresh(batch[0]), batch[1])

    assert As(module.net).keys() == {"first.all", "second.all"}
    for name, A in As(module.net).items():
        assert torch.equal(A, at_start.state[f"net.{name.replace('.', '.adapters.')}.factor_A"])
        assert torch.equal(A, calibrate.chosen.factors[name])
        torch.testing.assert_close(A @ A.T, torch.eye(2))
    if rule == "inputs":  # of the first layer, before any dropout
        batches = list(islice(loader(), 3))
        statistics = calibration_statistics(fresh.net, adapter_sites(fresh.net), batches, loss)
        expected = drawn_from(fresh.net, statistics)["first.all"]
        torch.testing.assert_close(As(module.net)["first.all"], expected)


@pytest.mark.parametrize("rule", RULES)
def test_an_A_that_keeps_the_rate_spans_the_same_and_reads_as_much_as_random_ones(rule, tmp_path):
    plain, scaled = CalibrateA(rule, num_batches=3), CalibrateA(rule, num_batches=3, keeps_rate=True)
    fit(tmp_path, plain)
    _, module = fit(tmp_path, scaled)
    x = torch.cat([batch[0] for batch in islice(loader(), 3)])  # what the first layer reads
    A, expected = scaled.chosen.factors["first.all"], plain.chosen.factors["first.all"]
    assert torch.equal(As(module.net)["first.all"], A)
    factor = float(A.norm() / expected.norm())
    torch.testing.assert_close(A, factor * expected)
    random = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1])).Q  # all rows together: their mean is exact
    torch.testing.assert_close((x @ A.T).square().mean(), (x @ random.T).square().mean())


def test_training_is_what_it_is_with_the_same_A_from_elsewhere(tmp_path):
    class Given(Callback):
        def __init__(self, rows):
            self.rows = rows

        def on_train_start(self, trainer, pl_module):
            reset_adapters(pl_module.net, statistics=self.rows)

    calibrate = CalibrateA("gradient", head_steps=4)
    _, calibrated = fit(tmp_path, calibrate, train=loader(shuffle=True))
    save_chosen(calibrate.chosen, tmp_path / "A.safetensors")
    _, from_file = fit(tmp_path, CalibrateA(file=tmp_path / "A.safetensors"), train=loader(shuffle=True))
    for name, tensor in calibrated.state_dict().items():
        assert torch.equal(tensor, from_file.state_dict()[name]), name


def test_heads_are_trained_before_and_undone(tmp_path):
    starts, found = [], []
    for head_steps in (0, 5):
        at_start, calibrate = AtStart(), CalibrateA("gradient", head_steps=head_steps)
        fit(tmp_path, calibrate, at_start)
        starts.append(at_start.state)
        found.append(calibrate.chosen.factors["second.all"])
    for name, tensor in starts[0].items():
        assert torch.equal(tensor, starts[1][name]) == ("factor_A" not in name), name
    assert not torch.allclose(found[0].abs(), found[1].abs(), atol=1e-3)


def test_one_layer_at_a_time_gives_the_same(tmp_path):
    found = []
    for layers_at_a_time in (None, 1):
        _, module = fit(tmp_path, CalibrateA(layers_at_a_time=layers_at_a_time))
        found.append(As(module.net))
    assert all(torch.equal(A, found[1][name]) for name, A in found[0].items())


def test_a_resumed_run_has_the_same_A_to_the_bit_and_calibrates_nothing(tmp_path):
    options = {"enable_checkpointing": True, "max_epochs": 3}
    _, whole = fit(tmp_path, CalibrateA(), train=loader(shuffle=True), max_epochs=3)
    checkpoint = AdapterCheckpoint(tmp_path / "c", filename="{step}", save_top_k=-1, every_n_train_steps=4)
    fit(tmp_path, CalibrateA(), checkpoint, train=loader(shuffle=True), **options)
    run = trainer(tmp_path, injection(), calibrate := CalibrateA(num_batches=1))
    run.fit_loop.max_epochs = 3
    resumed = Foreign()
    run.fit(resumed, loader(shuffle=True), loader(), ckpt_path=tmp_path / "c" / "step=4.ckpt")
    assert calibrate.chosen is None
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_an_adapter_module_calibrates_with_a_shared_A_and_says_so_in_its_configuration(tmp_path):
    module = ImageClassifier(
        "vit_digits", 10, adapter=AdapterConfig(rank=4, share_a=True), optimizer=partial(torch.optim.Adam, lr=0.01)
    )
    data = DigitsDataModule(num_train=100, loader=LoaderOptions(20))
    run = Trainer(accelerator="cpu", max_steps=2, callbacks=[CalibrateA(), BNormMonitor(every_n_steps=1)], logger=False,
                  default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    run.fit(module, datamodule=data)
    assert module.adapter.scheme == module.hparams["adapter"].scheme == "hB_zero_A_whitened_gradient"
    assert set(As(module.backbone)) == {f"blocks.{i}.attn.qkv.shared" for i in range(6)}
    for A in As(module.backbone).values():
        torch.testing.assert_close(A @ A.T, torch.eye(4), atol=1e-5, rtol=0)
    path = next(tmp_path.rglob("*.ckpt"))
    loaded = ImageClassifier.load_from_checkpoint(path, backbone="vit_digits")
    assert all(torch.equal(A, As(loaded.backbone)[name]) for name, A in As(module.backbone).items())


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_in_bfloat16_A_is_orthonormal_in_float32_and_near_that_of_float32(precision, tmp_path):
    _, single = fit(tmp_path, CalibrateA("inputs"), module=Foreign())
    _, half = fit(tmp_path, CalibrateA("inputs"), module=Foreign(), precision=precision)
    A, exact = As(half.net)["first.all"], As(single.net)["first.all"]
    assert A.dtype == torch.float32
    torch.testing.assert_close(A @ A.T, torch.eye(2))
    assert (A @ exact.T).square().sum() > 1.9  # of 2, were the spans equal


def test_a_trained_A_starts_from_what_was_chosen(tmp_path):
    _, module = fit(tmp_path, calibrate := CalibrateA("gradient"), adapter={"scheme": "hB_zero_hA_he"})
    assert next(iter(adapters_by_name(module).values())).scheme.A.is_trained
    assert not torch.equal(As(module.net)["first.all"], calibrate.chosen.factors["first.all"])


class EveryOther(Sampler):
    """Every other row, which in two processes makes the batches that one process has, in halves."""

    def __iter__(self):
        return iter(range(dist.get_rank(), 40, 2))

    def __len__(self):
        return 20


def chosen_in_processes(folder, **options):
    seed_everything(0)
    run = trainer(folder, injection(), calibrate := CalibrateA(num_batches=2, head_steps=2), max_epochs=1, **options)
    module = Foreign()
    module.net.dropout.p = 0.0
    whole = loader()
    train = DataLoader(whole.dataset, batch_size=4, sampler=EveryOther()) if options else whole
    run.fit(module, train, loader())
    return {name: A.tolist() for name, A in calibrate.chosen.factors.items()}


def test_two_processes_choose_what_one_chooses_with_whole_batches(tmp_path):
    options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    together = [outcome.value for outcome in in_two_processes(partial(chosen_in_processes, **options), tmp_path)]
    alone = chosen_in_processes(tmp_path)
    assert together[0] == together[1]
    for name, rows in alone.items():
        torch.testing.assert_close(torch.tensor(together[0][name]), torch.tensor(rows), rtol=1e-3, atol=1e-4)


def test_the_same_callback_chooses_for_another_module_and_leaves_what_has_been_trained(tmp_path):
    calibrate = CalibrateA("gradient")
    _, first = fit(tmp_path, calibrate)
    chosen, before = calibrate.chosen, As(first.net)
    trainer(tmp_path, injection(), calibrate).fit(first, loader(), loader())
    assert calibrate.chosen is chosen
    assert all(torch.equal(A, before[name]) for name, A in As(first.net).items())
    _, second = fit(tmp_path, calibrate, train=loader(24, shuffle=True))
    assert calibrate.chosen is not chosen
    assert all(torch.equal(A, calibrate.chosen.factors[name]) for name, A in As(second.net).items())


def test_what_can_not_be_chosen_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"`rule` 'rand' draws from no data; those that do are .*whitened_gradient"):
        CalibrateA("rand")
    with pytest.raises(ValueError, match="`num_batches` must be at least 1, not 0"):
        CalibrateA(num_batches=0)
    with pytest.raises(ValueError, match="`rule` and `file` say twice"):
        CalibrateA("gradient", file="A.safetensors")
    with pytest.raises(RuntimeError, match="CalibrateA finds no adapters"):
        trainer(tmp_path, CalibrateA()).fit(Foreign(), loader())
    early = ImageClassifier("vit_digits", 10, adapter=AdapterConfig(rank=4), optimizer=torch.optim.Adam)
    early.configure_model()
    with pytest.raises(RuntimeError, match=r"adapted by hB_zero_A_rand before CalibrateA .*'hB_zero_A_gradient'"):
        trainer(tmp_path, CalibrateA("gradient")).fit(early, DigitsDataModule(num_train=50))
    unlabelled = DataLoader(torch.randn(8, 12), batch_size=8)
    with pytest.raises(ValueError, match="fails on training batch 0, which has to have labels, with ValueError"):
        fit(tmp_path, CalibrateA(), train=unlabelled)
    rows = TensorDataset(torch.full((8, 12), torch.inf), torch.zeros(8, dtype=torch.int64))
    infinite = DataLoader(rows, batch_size=8)
    with pytest.raises(ValueError, match="of `first` are not all finite"):
        fit(tmp_path, CalibrateA(), train=infinite)


def test_an_A_that_needs_data_and_gets_none_is_refused_before_training(tmp_path):
    with pytest.raises(RuntimeError, match=r"A of `first.all`.* is drawn from data .* add CalibrateA"):
        fit(tmp_path, adapter={"scheme": "hB_zero_A_gradient"})


def test_a_file_for_another_rank_is_refused(tmp_path):
    path = tmp_path / "A.safetensors"
    backbone = Foreign().net
    inject_adapters(backbone, AdapterConfig(rank=2, targets=["first", "second"]))
    rows = {name: torch.randn(1, 12) for name in ("first.all", "second.all")}
    save_chosen(ChosenA("gradient", rows, {}, backbone_sample(backbone)), path)
    with pytest.raises(ValueError, match=r"has rank 1 for `first.all`, and rank 2 is asked for"):
        fit(tmp_path, CalibrateA(file=path))
