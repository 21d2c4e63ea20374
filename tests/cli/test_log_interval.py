"""How often a run logs where nothing is said of it."""

from types import SimpleNamespace

import pytest

from asym_lightning.cli.log_interval import LogEachEpoch


@pytest.mark.parametrize(("batches", "interval", "expected"), [(3, 50, 3), (3, 2, 2), (0, 50, 1), (90, 50, 50)])
def test_the_interval_is_an_epoch_at_most(batches, interval, expected):
    trainer = SimpleNamespace(num_training_batches=batches, log_every_n_steps=interval)
    LogEachEpoch().on_train_start(trainer, None)
    assert trainer.log_every_n_steps == expected
