"""Projects that import `pytorch_lightning`: what the callbacks do is the same, to the bit, as with `lightning`."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, GradientAccumulationScheduler, ModelCheckpoint
from pytorch_lightning.plugins import BitsandbytesPrecision

from asym_lightning.adapters import adapters_by_name
from asym_lightning.callbacks import (
    AdapterCheckpoint,
    AdapterInjection,
    BNormMonitor,
    CalibrateA,
    FreezeA,
    Milestones,
    OrderSeed,
    RankScheduler,
    RedrawA,
    RunRecord,
)
from asym_lightning.core.either_lightning import known_to_both
from tests.callbacks.foreign import Foreign, Net, Project, injection, loader, trainer

ROOT = Path(__file__).parents[2]
BOTH = (lightning.pytorch, pytorch_lightning)


class Other(Project, pytorch_lightning.LightningModule):
    """It imports `pytorch_lightning`."""


class OtherData(pytorch_lightning.LightningDataModule):
    def train_dataloader(self):
        return loader(shuffle=True)

    def val_dataloader(self):
        return loader()


def callbacks(suite: str, folder: Path) -> list:
    checkpoint = AdapterCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    if suite == "scheduled":
        trained = injection(adapter={"rank": 4, "scheme": "hB_zero_hA_rand", "dropout": 0.1})
        schedule = RankScheduler(Milestones({3: 2, 6: 6}))
        return [
            trained,
            schedule,
            FreezeA(after_steps=4, orthonormalize=True),
            BNormMonitor(every_n_steps=2),
            checkpoint,
        ]
    if suite == "calibrated":
        return [injection(), CalibrateA(num_batches=2), FreezeA(), OrderSeed(4), RunRecord(), checkpoint]
    return [injection(), RedrawA(2, every_n_steps=4), checkpoint]


def run(package, folder: Path, *given, resume: Path | None = None, **options):
    torch.manual_seed(0)
    module = (Foreign if package is lightning.pytorch else Other)("configure_model")
    logger = package.loggers.CSVLogger(folder, name="log", version=0)
    options = {"kind": package.Trainer, "enable_checkpointing": True, "logger": logger, **options}
    fit = trainer(folder, *given, **options)
    fit.fit(module, loader(shuffle=True), loader(), ckpt_path=resume)
    return module, fit


def same(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one if "extra" not in n)


@pytest.mark.parametrize("suite", ["scheduled", "calibrated", "redrawn"])
def test_a_run_is_the_same_with_either_and_so_is_one_that_is_gone_on_with(suite, tmp_path):
    (one, _), (other, fit) = (
        run(package, tmp_path / package.__name__, *callbacks(suite, tmp_path / package.__name__)) for package in BOTH
    )
    assert all(adapter.B.any() for adapter in adapters_by_name(other).values())
    assert same(one, other)
    files = [{path.name: path for path in (tmp_path / package.__name__).glob("*.ckpt")} for package in BOTH]
    assert files[0].keys() == files[1].keys() != set()
    for name in files[0]:
        states = [torch.load(each[name], weights_only=True)["state_dict"] for each in files]
        assert states[0].keys() == states[1].keys() and not any("first.weight" in key for key in states[1])
    assert [callback for callback in fit.callbacks if isinstance(callback, ModelCheckpoint)] == fit.callbacks[-1:]
    assert Path(fit.checkpoint_callback.best_model_path).with_suffix(".adapter").is_dir()
    resumed, _ = run(
        pytorch_lightning, tmp_path / "resumed", *callbacks(suite, tmp_path / "resumed"), resume=files[1]["step=7.ckpt"]
    )
    assert same(resumed, other)


def test_another_backbone_is_refused(tmp_path):
    run(pytorch_lightning, tmp_path, injection(), AdapterCheckpoint(tmp_path, "x"))
    module = Other()
    module.net = Net()
    fit = trainer(tmp_path, injection(), kind=pytorch_lightning.Trainer)
    with pytest.raises(ValueError, match="written with another backbone"):
        fit.fit(module, loader(), ckpt_path=tmp_path / "x.ckpt")


def test_test_predict_and_load_are_of_the_best_checkpoint(tmp_path):
    module, fit = run(pytorch_lightning, tmp_path, injection(), AdapterCheckpoint(tmp_path, "x", monitor="val/loss"))
    expected = fit.validate(module, loader(), ckpt_path="best", verbose=False)
    again, fresh = Other(), trainer(tmp_path, injection(), kind=pytorch_lightning.Trainer)
    assert fresh.validate(again, loader(), ckpt_path=tmp_path / "x.ckpt", verbose=False) == expected
    predicted = torch.cat(fresh.predict(again, loader()))
    loaded = Other()
    injection().load(loaded, tmp_path / "x.adapter")
    loaded.eval()
    assert torch.equal(torch.cat([loaded(x) for x, _ in loader()]), predicted)


def test_averages_are_of_what_trains_and_accumulation_goes_on(tmp_path):
    def given():
        return [
            injection(),
            EMAWeightAveraging(decay=0.5),
            GradientAccumulationScheduler({0: 2}),  # whose own check would refuse what a resumed run has been set to
            ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1),
        ]

    whole, _ = run(pytorch_lightning, tmp_path, *given())
    state = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert not any("first.weight" in name for key in ("state_dict", "current_model_state") for name in state[key])
    resumed, _ = run(pytorch_lightning, tmp_path, *given(), resume=tmp_path / "step=2.ckpt")
    assert same(resumed, whole)


def test_calibration_takes_the_batches_of_a_data_module(tmp_path):
    module = Other()
    fit = trainer(tmp_path, injection(), CalibrateA(num_batches=2), kind=pytorch_lightning.Trainer)
    fit.fit(module, datamodule=OtherData())
    assert all(adapter.B.any() for adapter in adapters_by_name(module).values())


def test_histograms_reach_tensorboard(tmp_path):
    shown = []
    logger = pytorch_lightning.loggers.TensorBoardLogger(tmp_path)
    logger.experiment.add_histogram = lambda name, *_: shown.append(name)
    run(pytorch_lightning, tmp_path, injection(), BNormMonitor(every_n_steps=2), logger=logger)
    assert "b_norm/first.all/singular_values" in shown


def test_what_adapters_can_not_live_with_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    fit = trainer(tmp_path, injection(), kind=pytorch_lightning.Trainer)
    fit.strategy.precision_plugin = BitsandbytesPrecision("nf4")  # the Trainer takes it with a GPU only
    with pytest.raises(ValueError, match="`BitsandbytesPrecision` would quantise the heads"):
        fit.fit(Other(), loader())


def test_another_release_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pytorch_lightning, "__version__", "2.3.1")
    fit = trainer(tmp_path, injection(), kind=pytorch_lightning.Trainer)
    with pytest.raises(ValueError, match=r"`pytorch_lightning` 2\.3\.1 and .*: pip install pytorch-lightning=="):
        fit.fit(Other(), loader())


def test_copies_of_a_checkpoint_callback_are_known_to_both_too(tmp_path):
    callback = AdapterCheckpoint(tmp_path, monitor="val/loss")
    for copied in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert isinstance(copied, ModelCheckpoint) and isinstance(copied, AdapterCheckpoint)
        assert copied.state_key == callback.state_key and vars(copied) == vars(callback)
    known_to_both(injected := AdapterInjection())
    assert isinstance(injected, pytorch_lightning.Callback)


def test_the_other_package_is_not_imported():
    sources = (path.read_text() for path in (ROOT / "asym_lightning").rglob("*.py"))
    assert not any(re.search(r"^ *(import|from) pytorch_lightning", source, re.MULTILINE) for source in sources)


def test_a_checkpoint_callback_made_too_early_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("asym_lightning.callbacks.checkpoint.known_to_both", lambda callback: None)
        early = AdapterCheckpoint(tmp_path)
    with pytest.raises(ValueError, match=r"made before `pytorch_lightning`.* was imported: make it afterwards"):
        run(pytorch_lightning, tmp_path, injection(), early)
