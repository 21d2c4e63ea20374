"""A run that is resumed from any of its checkpoints ends as it would have without the interruption, to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.utilities import CombinedLoader
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError, R2Score

from asym_lightning.callbacks import AdapterCheckpoint, FreezeA, Milestones, OrderSeed, RankScheduler
from tests.lifecycle.runs import Foreign, Noisy, Own, data, differences, result, start

KINDS = {"own": Own, "foreign": Foreign}
Callbacks = Callable[[Path], list[Callback]]
Loaders = Callable[[], tuple[Any, ...]]


def by_steps(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)]


def by_epochs(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "{step}", save_top_k=-1, save_on_train_epoch_end=True)]


def by_validations(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "{step}", monitor="val/loss", save_top_k=-1, save_on_train_epoch_end=False)]


def by_time(folder: Path) -> list[Callback]:
    return [ModelCheckpoint(folder, "{step}", train_time_interval=timedelta(0), save_top_k=-1)]


def with_adapters(folder: Path) -> list[Callback]:
    return [AdapterCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, save_last=True)]


def both() -> tuple[DataLoader, DataLoader]:
    return data(), data(shuffle=False)


def resume_from_every_checkpoint(
    folder: Path,
    module: Callable[[], LightningModule],
    checkpoints: Callbacks = by_steps,
    loaders: Loaders = both,
    callbacks: Callable[[], list[Callback]] = list,
    **options: Any,
) -> int:
    """Compare, from each checkpoint on, all that happens and all that is left in the end.

    Returns:
        The number of checkpoints.
    """
    options = {"max_epochs": 2, **options}
    whole, trainer, events = start(folder, module(), *callbacks(), *checkpoints(folder / "whole"), **options)
    trainer.fit(whole, *loaders())
    expected = result(whole, trainer)
    paths = sorted((folder / "whole").glob("*.ckpt"))
    for path in paths:
        # Another seed: nothing may come from what this process happens to start with.
        resumed, trainer, rest = start(
            folder, module(), *callbacks(), *checkpoints(folder / "resumed"), seed=77, **options
        )
        trainer.fit(resumed, *loaders(), ckpt_path=path, weights_only=True)
        assert rest.events == events.events[len(events.events) - len(rest.events) :], path.name
        found = result(resumed, trainer)
        compared = expected if rest.events else {"state": expected["state"]}  # or there was nothing left to do
        assert differences({key: found[key] for key in compared}, compared) == [], path.name
    return len(paths)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("checkpoints", "number"),
    [
        (by_steps, 10),
        (by_epochs, 2),
        (by_validations, 2),
        pytest.param(by_time, 10, marks=pytest.mark.slow),
        pytest.param(with_adapters, 11, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whichever_callback_writes_the_checkpoints(kind, checkpoints, number, tmp_path):
    assert resume_from_every_checkpoint(tmp_path, KINDS[kind], checkpoints) == number


def test_workers_validation_in_mid_epoch_and_accumulated_gradients_at_once(tmp_path):
    options = {"accumulate_grad_batches": 3, "val_check_interval": 2, "limit_train_batches": 4}
    assert resume_from_every_checkpoint(tmp_path, Own, by_time, with_persistent_workers, **options) == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_validation_in_mid_epoch_and_accumulated_gradients(kind, tmp_path):
    """By time a checkpoint comes in the middle of an accumulation too."""
    options = {"accumulate_grad_batches": 3, "val_check_interval": 2}
    assert resume_from_every_checkpoint(tmp_path / "steps", KINDS[kind], by_steps, **options)
    assert resume_from_every_checkpoint(tmp_path / "time", KINDS[kind], by_time, **options)
    assert resume_from_every_checkpoint(tmp_path / "validations", KINDS[kind], by_validations, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"limit_val_batches": 0},
        {"limit_train_batches": 3},
        {"max_steps": 10, "max_epochs": -1},
        {"check_val_every_n_epoch": None, "val_check_interval": 3},
        {"check_val_every_n_epoch": 2},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
def test_options_of_the_trainer(options, tmp_path):
    for checkpoints in (by_steps, by_epochs):
        assert resume_from_every_checkpoint(tmp_path / checkpoints.__name__, Own, checkpoints, **options)


def random_generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def with_a_generator() -> tuple[DataLoader, DataLoader]:
    return data(generator=random_generator()), data(shuffle=False)


def weighted() -> tuple[DataLoader, DataLoader]:
    sampler = WeightedRandomSampler(torch.arange(1.0, 21.0), 20, generator=random_generator())
    return DataLoader(Noisy(), 4, sampler=sampler), data(shuffle=False)


def stateful() -> tuple[DataLoader, DataLoader]:
    stateful_dataloader = pytest.importorskip("torchdata.stateful_dataloader")
    return stateful_dataloader.StatefulDataLoader(Noisy(), 4, shuffle=True), data(shuffle=False)


def with_workers() -> tuple[DataLoader, DataLoader]:
    return data(num_workers=1), data(shuffle=False)


def with_persistent_workers() -> tuple[DataLoader, DataLoader]:
    return (
        data(num_workers=1, persistent_workers=True),
        data(shuffle=False, num_workers=1, persistent_workers=True),
    )


@pytest.mark.slow
@pytest.mark.parametrize("loaders", [with_a_generator, weighted, with_workers, with_persistent_workers])
def test_loaders(loaders, tmp_path):
    assert resume_from_every_checkpoint(tmp_path, Own, by_steps, loaders, max_epochs=2, limit_train_batches=3)


@pytest.mark.slow
def test_a_stateful_loader_of_the_users_own(tmp_path):
    """It is iterated, and draws, a little earlier in the resumed run: the weights are compared."""
    whole, trainer, _ = start(tmp_path, Own(), *by_steps(tmp_path / "whole"))
    trainer.fit(whole, *stateful())
    for path in sorted((tmp_path / "whole").glob("*.ckpt")):
        resumed, trainer, _ = start(tmp_path, Own(), *by_steps(tmp_path / "resumed"), seed=77)
        trainer.fit(resumed, *stateful(), ckpt_path=path, weights_only=True)
        assert differences(resumed.state_dict(), dict(whole.state_dict())) == [], path.name


class OfTwo(Foreign):
    """Trains on two loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return sum(F.mse_loss(self.backbone(x), y) for x, y in batch)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max_size_cycle", "min_size"])
def test_loaders_that_are_combined(mode, tmp_path):
    def loaders() -> tuple[Any, DataLoader]:
        return CombinedLoader([data(), data(batch_size=7)], mode), data(shuffle=False)

    assert resume_from_every_checkpoint(tmp_path, OfTwo, by_steps, loaders)


def looks_at_a_metric() -> Own:
    return Own(lambda optimizer: ReduceLROnPlateau(optimizer, monitor="val/loss", patience=0, factor=0.5))


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [by_steps, by_epochs, by_validations])
def test_a_schedule_that_looks_at_a_metric(checkpoints, tmp_path):
    assert resume_from_every_checkpoint(tmp_path, looks_at_a_metric, checkpoints, max_epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [by_steps, by_epochs])
def test_callbacks_that_act_at_the_end_of_an_epoch(checkpoints, tmp_path):
    def callbacks() -> list[Callback]:
        return [
            FreezeA(after_epochs=1, orthonormalize=True),
            RankScheduler(Milestones({1: 4, 2: 3}, unit="epochs")),
            GradientAccumulationScheduler({0: 1, 1: 2}),
            OrderSeed(3),
        ]

    both_train = {"scheme": "hB_zero_hA_rand"}
    assert resume_from_every_checkpoint(
        tmp_path, lambda: Own(**both_train), checkpoints, callbacks=callbacks, max_epochs=3
    )


class BySteps(Foreign):
    """Optimizes by itself, every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.manual_backward(F.mse_loss(self.backbone(batch[0]), batch[1]))
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.slow
def test_manual_optimization(tmp_path):
    assert resume_from_every_checkpoint(tmp_path, BySteps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"max_steps": 7, "max_epochs": -1}, {"max_steps": 13, "max_epochs": -1}),
        ({"max_steps": 5, "max_epochs": -1}, {"max_steps": 13, "max_epochs": -1}),
        ({"max_epochs": 2}, {"max_epochs": 3}),
    ],
    ids=str,
)
def test_a_run_that_was_shorter_goes_on_as_the_longer_one(first, then, tmp_path):
    def module() -> Own:
        return Own(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7))

    whole, trainer, events = start(tmp_path, module(), **then)
    trainer.fit(whole, *both())
    expected = result(whole, trainer)
    shorter, trainer, _ = start(tmp_path, module(), *by_steps(tmp_path), **first)
    trainer.fit(shorter, *both())
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    for path in sorted(tmp_path.glob("*.ckpt")):
        resumed, trainer, rest = start(tmp_path, module(), seed=77, **then)
        trainer.fit(resumed, *both(), ckpt_path=path, weights_only=True)
        assert rest.events == events.events[-len(rest.events) :], path.name
        assert differences(result(resumed, trainer), expected) == [], path.name


# What can't be resumed


class Stream(IterableDataset):
    """Rows without an end that anybody knows."""

    def __iter__(self):
        rows = Noisy()
        return (rows[i] for i in range(len(rows)))


@pytest.mark.parametrize("kind", KINDS)
def test_data_that_come_again_are_warned_of_by_name(kind, tmp_path):
    module, trainer, _ = start(tmp_path, KINDS[kind](), *by_steps(tmp_path), max_steps=7, max_epochs=-1)
    trainer.fit(module, DataLoader(Stream(), 4))
    module, trainer, _ = start(tmp_path, KINDS[kind](), max_steps=8, max_epochs=-1)
    with pytest.warns(UserWarning, match="come again, because the DataLoader of Stream reads an iterable data set"):
        trainer.fit(module, DataLoader(Stream(), 4), ckpt_path=tmp_path / "step=7.ckpt", weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_end_of_an_epoch_nothing_comes_again_and_nothing_is_warned_of(kind, tmp_path):
    def loaders() -> tuple[DataLoader, DataLoader]:
        return DataLoader(Stream(), 4), data(shuffle=False)

    whole, trainer, _ = start(tmp_path, KINDS[kind](), *by_steps(tmp_path), max_steps=10, max_epochs=-1)
    trainer.fit(whole, *loaders())
    resumed, trainer, _ = start(tmp_path, KINDS[kind](), seed=77, max_steps=10, max_epochs=-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The rest of this epoch")
        trainer.fit(resumed, *loaders(), ckpt_path=tmp_path / "step=5.ckpt", weights_only=True)
    assert differences(resumed.backbone.state_dict(), dict(whole.backbone.state_dict())) == []


def test_other_data_in_mid_epoch_are_refused_and_at_the_end_of_an_epoch_they_are_not(tmp_path):
    module, trainer, _ = start(tmp_path, Own(), *by_steps(tmp_path))
    trainer.fit(module, *both())
    module, trainer, _ = start(tmp_path, Own())
    with pytest.raises(ValueError, match=r"in the middle of an epoch of 5 batches, and now an epoch has 4: resume"):
        trainer.fit(module, data(batch_size=5), ckpt_path=tmp_path / "step=7.ckpt", weights_only=True)
    module, trainer, _ = start(tmp_path, Own())
    trainer.fit(module, data(batch_size=5), ckpt_path=tmp_path / "step=5.ckpt", weights_only=True)
    assert trainer.global_step == 9


def test_another_number_of_loaders_in_mid_epoch_is_refused(tmp_path):
    module, trainer, _ = start(tmp_path, Foreign(), *by_steps(tmp_path), max_epochs=1)
    trainer.fit(module, data())
    module, trainer, _ = start(tmp_path, OfTwo(), max_epochs=1)
    with pytest.raises(ValueError, match="with 1 training loaders, and now there are 2"):
        two = CombinedLoader([data(), data()], "max_size_cycle")
        trainer.fit(module, two, ckpt_path=tmp_path / "step=2.ckpt", weights_only=True)


class InSteps(Callback):
    """Writes a checkpoint in the middle of every step, as at a signal of SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}-{batch_idx}.ckpt")


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2, "accumulate_grad_batches": 2}], ids=str)
def test_a_checkpoint_in_the_middle_of_a_step_goes_on_with_that_step(options, tmp_path):
    """The same batches and validations come; what is drawn for a batch that was being trained on is drawn again."""

    def fit(folder: Path, checkpoint: Path | None = None) -> list[Any]:
        module, trainer, trace = start(tmp_path, Own(), InSteps(folder), **options)
        rows = TensorDataset(Noisy().x, Noisy().x.sum(1, keepdim=True))
        loaders = [DataLoader(rows, batch_size=4, shuffle=shuffle) for shuffle in (True, False)]
        trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
        return [(hook.split(" 0.")[0] if "end" in hook else hook, *counts) for hook, *counts, _ in trace.events]

    events = fit(tmp_path / "whole")
    paths = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(paths) == 10
    for path in paths:
        rest = fit(tmp_path / "resumed", path)
        assert rest[0][0].startswith(f"train_batch_start {path.stem[-1]}")
        assert [[event[0].split()[0], *event[1:]] for event in rest] == [
            [event[0].split()[0], *event[1:]] for event in events[-len(rest) :]
        ], path.name
        batches = [event for event in rest if "batch" in event[0]]
        assert batches == [event for event in events if "batch" in event[0]][-len(batches) :], path.name


class Counting(Foreign):
    """Its metrics count all batches of an epoch, two of them as one, and are asked and reset when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = MeanAbsoluteError()
        self.both = MetricCollection({"r2": R2Score(), "same": R2Score()})
        self.epochs: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        predictions = self.backbone(x)
        self.sum.update(predictions, y)
        self.both.update(predictions, y)
        return F.mse_loss(predictions, y)

    def on_train_epoch_end(self) -> None:
        self.epochs.append({"sum": float(self.sum.compute()), **{n: float(v) for n, v in self.both.compute().items()}})
        self.sum.reset()
        self.both.reset()


def test_metrics_of_the_module_count_on(tmp_path):
    whole, trainer, _ = start(tmp_path, Counting(), *by_steps(tmp_path / "whole"))
    trainer.fit(whole, *both())
    for path in sorted((tmp_path / "whole").glob("*.ckpt")):
        resumed, trainer, _ = start(tmp_path, Counting(), seed=77)
        trainer.fit(resumed, *both(), ckpt_path=path)
        assert resumed.epochs == whole.epochs[2 - len(resumed.epochs) :], path.name


class Logging(Foreign):
    """It logs a metric, which Lightning resets, and no validation comes between."""

    def __init__(self) -> None:
        super().__init__()
        self.error = MeanAbsoluteError()
        self.epochs: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        predictions = self.backbone(x)
        self.error(predictions, y)
        self.log("train/error", self.error, on_step=False, on_epoch=True)
        return F.mse_loss(predictions, y)

    def on_train_end(self) -> None:
        self.epochs.append(float(self.trainer.callback_metrics["train/error"]))


def test_a_metric_that_lightning_logs_counts_each_epoch_for_itself(tmp_path):
    whole, trainer, _ = start(tmp_path, Logging(), *by_steps(tmp_path / "whole"))
    trainer.fit(whole, data())
    for step in range(1, 9):
        resumed, trainer, _ = start(tmp_path, Logging(), seed=77)
        trainer.fit(resumed, data(), ckpt_path=tmp_path / "whole" / f"step={step}.ckpt")
        assert resumed.epochs == whole.epochs, step
