"""Training steps that leave no trace."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler
from torchmetrics import MeanMetric

from asym_lightning.lifecycle.rehearsal import Rehearsal


class Noisy(Dataset):
    """Rows that are drawn at with every generator there is."""

    def __len__(self):
        return 24

    def __getitem__(self, row):
        return torch.full((6,), float(row)) + torch.rand(6) + random.random() + float(np.random.rand())


class Plain(Dataset):
    """The same without noise."""

    def __len__(self):
        return 24

    def __getitem__(self, row):
        return torch.full((6,), float(row))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(48.0).view(8, 6))


class Net(LightningModule):
    """Dropout, running statistics, a metric, and logging in every way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 1))
        self.mean = MeanMetric()
        self.seen = []

    def training_step(self, batch, batch_idx):
        x = batch["a"] if isinstance(batch, dict) else batch
        loss = F.mse_loss(self.net(x), x.sum(1, keepdim=True) / 100)
        self.seen.append(x)
        self.mean.update(loss.detach())
        self.log("loss", loss, on_step=True)
        self.log_dict({"mean": self.mean}, on_step=False, on_epoch=True)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Rehearse(Callback):
    """Runs a few batches forward and backward before training, and trains the head."""

    def __init__(self, num_batches=5):
        self.num_batches = num_batches
        self.batches, self.losses = [], []

    def on_train_start(self, trainer, pl_module):
        with Rehearsal(trainer, pl_module) as rehearsal:
            head = list(pl_module.net[-1].parameters())
            rehearsal.keep(head)
            for number, batch in enumerate(islice(rehearsal.batches(), self.num_batches)):
                loss = rehearsal.loss(batch, number)
                gradients = torch.autograd.grad(loss, head)
                for parameter, gradient in zip(head, gradients, strict=True):
                    parameter.data -= 0.1 * gradient
                self.batches.append(batch)
                self.losses.append(loss.item())
        pl_module.seen.clear()


def fit(module, loader=None, *callbacks, **options):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 2, **options}
    trainer = Trainer(accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **options)
    seed_everything(3, verbose=False)
    trainer.fit(module, loader)
    return trainer


def shuffled(data=Noisy(), **options):  # noqa: B008
    sampler = RandomSampler(data, generator=torch.Generator().manual_seed(1))
    return DataLoader(data, batch_size=4, sampler=sampler, **options)


LOADERS = {
    "shuffled by the global generator": lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    "shuffled by a sampler's generator": shuffled,
    "in persistent workers": lambda: shuffled(num_workers=1, persistent_workers=True),
    "one row at a time": lambda: DataLoader(Noisy(), None, collate_fn=lambda row: row.expand(2, 6)),
    "a stream": lambda: DataLoader(Stream(), batch_size=4),
    "several loaders": lambda: {"a": shuffled(), "b": DataLoader(Noisy(), batch_size=2)},
    "combined": lambda: CombinedLoader({"a": shuffled(), "b": DataLoader(Noisy(), batch_size=2)}, "min_size"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_run_with_a_rehearsal_ends_with_the_bits_of_one_without(name):
    plain, rehearsed, rehearse = Net(), Net(), Rehearse()
    first = fit(plain, LOADERS[name]())
    second = fit(rehearsed, LOADERS[name](), rehearse)
    assert len(rehearse.batches) == 5 and rehearse.losses[0] != rehearse.losses[-1]
    assert all(torch.equal(a, b) for a, b in zip(plain.seen, rehearsed.seen, strict=True))
    assert all(torch.equal(tensor, rehearsed.state_dict()[key]) for key, tensor in plain.state_dict().items())
    assert dict(first.callback_metrics) == dict(second.callback_metrics)


def test_batches_are_those_that_training_begins_with_and_epochs_follow_one_another():
    module, rehearse = Net(), Rehearse(num_batches=8)
    fit(module, shuffled(Plain()), rehearse)
    assert all(torch.equal(a, b) for a, b in zip(rehearse.batches[:6], module.seen[:6], strict=True))
    assert not torch.equal(rehearse.batches[6], rehearse.batches[0])


def test_batches_pass_through_the_hooks_of_module_and_data_module():
    class Data(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(Stream(), batch_size=4)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch + 1

    class Hooked(Net):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch + 1

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch * 2

    expected = (torch.arange(24.0).view(4, 6) + 1) * 2
    for loader in (Data(), DataLoader(Stream(), batch_size=4)):
        rehearse = Rehearse(num_batches=1)
        fit(Hooked(), loader, rehearse)
        torch.testing.assert_close(rehearse.batches[0], expected)


def test_losses_are_in_the_precision_of_the_run():
    dtypes = []

    class Watching(Net):
        def training_step(self, batch, batch_idx):
            dtypes.append(self.net[0](batch).dtype)
            return super().training_step(batch, batch_idx)

    fit(Watching(), shuffled(), Rehearse(num_batches=1), precision="bf16-mixed", max_steps=1)
    assert dtypes == [torch.bfloat16, torch.bfloat16]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda self, batch, number: None, "the training step of Broken gives no loss of training batch 0"),
        (
            lambda self, batch, number: batch["labels"],
            r"fails on training batch 0, which has to have labels, with \w+Err",
        ),
    ],
)
def test_a_step_without_a_loss_is_refused(step, message):
    with pytest.raises(ValueError, match=message):
        fit(type("Broken", (Net,), {"training_step": step})(), shuffled(), Rehearse())


def test_a_module_that_optimises_by_hand_is_refused():
    module = Net()
    module.automatic_optimization = False
    with pytest.raises(ValueError, match="Net steps its optimizers by itself"):
        fit(module, shuffled(), Rehearse())
